//! Limits on the nesting of a statement, which are checked on its tokens before it is parsed.
//!
//! The parser builds a syntax tree, and recurses through it. Each operator adds a level to the tree. The parser limits the
//! depth of expressions and queries, but not the depth of types and of some prefixes, so a statement could overflow the
//! stack. For the words in [`REPARSED`], the parser also has two ways to read what follows. If both fail, it has read
//! everything inside twice, so the time doubles with each level.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::{Error, Result};

/// The maximum length of an operator chain in a statement. A stack of
/// [`STACK_BYTES_MIN`](crate::query::planning::statement::STACK_BYTES_MIN) bytes is large enough for a chain of this length.
pub(in crate::query) const CHAIN_MAX: usize = 600;
/// The maximum nesting depth of brackets.
const BRACKETS_MAX: usize = 100;
/// The maximum number of [`REPARSED`] words and CASE expressions that are nested in each other.
const REPARSED_MAX: usize = 16;
/// The maximum number of [`STATEMENTS`] words.
const STATEMENTS_MAX: usize = 64;

/// The words that the parser reads as a special form, and as a function call if that fails. CASE is another such word: if
/// its END is missing, the parser takes it for the name of a column.
const REPARSED: [&str; 31] = [
    "ARRAY",
    "BOX",
    "CAST",
    "CEIL",
    "CIRCLE",
    "CONVERT",
    "EXISTS",
    "EXTRACT",
    "FLOOR",
    "INTERVAL",
    "LAMBDA",
    "LINE",
    "LSEG",
    "MAP",
    "MATCH",
    "NOT",
    "OVERLAY",
    "PATH",
    "POINT",
    "POLYGON",
    "POSITION",
    "PRIOR",
    "ROW",
    "SAFE_CAST",
    "STRUCT",
    "SUBSTR",
    "SUBSTRING",
    "TRIM",
    "TRY_CAST",
    "TRY_CONVERT",
    "TUPLE",
];
/// The words before an operand. After them, `end` is the name of a column.
const BEFORE_OPERANDS: [&str; 40] = [
    "ALL",
    "AND",
    "ANY",
    "AS",
    "AT",
    "BETWEEN",
    "BINARY",
    "BY",
    "CASE",
    "COLLATE",
    "DISTINCT",
    "DIV",
    "ELSE",
    "ESCAPE",
    "EXCEPT",
    "FROM",
    "HAVING",
    "ILIKE",
    "IN",
    "INTERSECT",
    "IS",
    "JOIN",
    "LIKE",
    "LIMIT",
    "OFFSET",
    "ON",
    "OR",
    "OVERLAPS",
    "QUALIFY",
    "REGEXP",
    "RLIKE",
    "SELECT",
    "SIMILAR",
    "SOME",
    "THEN",
    "TO",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
];
/// The words that begin a statement, which the parser also accepts inside other statements.
const STATEMENTS: [&str; 9] =
    ["COPY", "CREATE", "DECLARE", "DESCRIBE", "EXPLAIN", "INSERT", "MERGE", "PREPARE", "WHILE"];

/// Refuses a statement with too long chains or too deep nesting.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    check_chains(tokens)?;
    check_nesting(tokens)
}

/// Refuses nested brackets, nested CASE and nested [`REPARSED`] words. Words without a bracket after them, as in
/// `INTERVAL INTERVAL '1'`, are nested too.
fn check_nesting(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut open, mut level, mut reparsed, mut statements) = (Vec::new(), Level::default(), 0_usize, 0_usize);
    let mut before_operand = true;
    for token in tokens.iter().map(|token| &token.token).filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::Word(word) if is_keyword(word, &["CASE"]) => level.cases += 1,
            // Otherwise, `end` is the name of a column.
            Token::Word(word) if is_keyword(word, &["END"]) && !before_operand => {
                level.cases = level.cases.saturating_sub(1);
            }
            Token::Word(word) if is_keyword(word, &REPARSED) => level.words += 1,
            Token::Word(word) if is_keyword(word, &STATEMENTS) => statements += 1,
            Token::LParen | Token::LBracket | Token::LBrace => {
                reparsed += level.words + level.cases;
                open.push(std::mem::take(&mut level));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                level = open.pop().unwrap_or_default();
                reparsed -= level.words + level.cases;
                level.words = 0;
            }
            _ => level.words = 0,
        }
        let is_reparsed_often = reparsed + level.words + level.cases > REPARSED_MAX;
        if open.len() > BRACKETS_MAX || is_reparsed_often || statements > STATEMENTS_MAX {
            return Err(too_deep());
        }
        before_operand = match token {
            Token::Word(word) => is_keyword(word, &BEFORE_OPERANDS) || is_keyword(word, &REPARSED),
            Token::Comma | Token::LParen | Token::LBracket | Token::LBrace | Token::Period => true,
            token => is_operator(token),
        };
    }
    Ok(())
}

/// What the parser has begun to read between two brackets.
#[derive(Default)]
struct Level {
    /// The number of CASE expressions that have no END yet.
    cases: usize,
    /// The number of [`REPARSED`] words directly before the current token.
    words: usize,
}

fn is_keyword(word: &Word, keywords: &[&str]) -> bool {
    word.quote_style.is_none() && keywords.iter().any(|keyword| word.value.eq_ignore_ascii_case(keyword))
}

fn too_deep() -> Error {
    Error::limited(format!(
        "the statement is nested too deeply: at most {BRACKETS_MAX} brackets, and at most {REPARSED_MAX} calls of functions \
         such as CAST and EXTRACT or CASE expressions, can be nested in each other"
    ))
}

/// Refuses chains of operators (`a AND b AND …`, `1 + 1 + …`, `… UNION …`) that are too long. The check runs before
/// parsing, because each operator adds a level to the syntax tree, and a deep tree could overflow the stack. A comma
/// ends a chain, and a closing parenthesis ends the chain inside the parentheses.
fn check_chains(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut levels, mut depth) = (vec![0], 0);
    for token in tokens {
        match &token.token {
            Token::LParen => levels.push(0),
            Token::RParen if levels.len() > 1 => depth -= levels.pop().unwrap_or(0),
            Token::Comma => depth -= std::mem::take(levels.last_mut().unwrap_or(&mut 0)),
            token if is_operator(token) => {
                depth += 1;
                levels.iter_mut().next_back().into_iter().for_each(|level| *level += 1);
            }
            _ => {}
        }
        if depth > CHAIN_MAX {
            return Err(too_long_chain());
        }
    }
    Ok(())
}

pub(in crate::query) fn too_long_chain() -> Error {
    Error::limited(format!(
        "the statement chains more than {CHAIN_MAX} operators: use IN (…) or a join with VALUES instead"
    ))
}

fn is_operator(token: &Token) -> bool {
    const KEYWORDS: [&str; 16] = [
        "AND",
        "OR",
        "XOR",
        "NOT",
        "IS",
        "LIKE",
        "ILIKE",
        "SIMILAR",
        "BETWEEN",
        "IN",
        "AT",
        "COLLATE",
        "UNION",
        "INTERSECT",
        "EXCEPT",
        "JOIN",
    ];
    match token {
        Token::Word(word) => is_keyword(word, &KEYWORDS),
        Token::Number(..) | Token::Char(_) | Token::Whitespace(_) | Token::Period | Token::SemiColon => false,
        Token::Placeholder(_) | Token::RParen | Token::RBracket | Token::RBrace | Token::EOF => false,
        token => !is_string(token),
    }
}

fn is_string(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}
