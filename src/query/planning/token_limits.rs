//! Limits on the nesting of a statement, which are checked on its tokens before it is parsed.
//!
//! The parser builds a syntax tree recursively, and each operator adds a level to the tree. The parser limits the depth
//! of expressions and queries, but not the depth of types and of some prefix operators, so a statement could overflow
//! the stack. The parser also tries two ways to parse the text after each word in [`REPARSED`]. If the first way fails,
//! it parses the nested text again, so the parsing time can double with each level.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::{Error, Result};

/// The maximum length of an operator chain in a statement. A stack of
/// [`STACK_BYTES_MIN`](crate::query::planning::statement::STACK_BYTES_MIN) bytes is large enough for a chain of this
/// length.
pub(in crate::query) const CHAIN_MAX: usize = 600;
/// The maximum nesting depth of brackets.
const BRACKETS_MAX: usize = 100;
/// The maximum number of [`REPARSED`] words and CASE expressions that are nested in each other.
const REPARSED_MAX: usize = 16;
/// The maximum number of [`STATEMENTS`] words. The stack is large enough for this number of nested statements.
const STATEMENTS_MAX: usize = 64;

/// The words that begin a special syntax. If the parser cannot parse this syntax, it parses the word as the name of a
/// function or a column. CASE is also such a word, but `check_nesting` counts it separately, because it ends with END.
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
/// The words after which an operand follows. Directly after one of them, `end` is the name of a column.
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
/// The words that begin a statement that the parser also accepts inside another statement.
const STATEMENTS: [&str; 9] =
    ["COPY", "CREATE", "DECLARE", "DESCRIBE", "EXPLAIN", "INSERT", "MERGE", "PREPARE", "WHILE"];

/// Refuses a statement whose operator chains are too long or whose nesting is too deep.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    check_chains(tokens)?;
    check_nesting(tokens)
}

/// Refuses a statement with too many nested brackets, CASE expressions or [`REPARSED`] words, or with too many
/// [`STATEMENTS`] words. Words can also be nested without brackets, as in `INTERVAL INTERVAL '1'`.
fn check_nesting(tokens: &[TokenWithSpan]) -> Result<()> {
    let (mut open, mut level, mut reparsed, mut statements) = (Vec::new(), Level::default(), 0_usize, 0_usize);
    let mut before_operand = true;
    for token in tokens.iter().map(|token| &token.token).filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::Word(word) if is_keyword(word, &["CASE"]) => level.cases += 1,
            // Before an operand, `end` is the name of a column.
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
        if open.len() > BRACKETS_MAX || is_reparsed_often {
            return Err(too_deep());
        }
        if statements > STATEMENTS_MAX {
            return Err(Error::limited(format!(
                "the statement contains more than {STATEMENTS_MAX} words such as EXPLAIN, INSERT and CREATE"
            )));
        }
        before_operand = match token {
            Token::Word(word) => is_keyword(word, &BEFORE_OPERANDS) || is_keyword(word, &REPARSED),
            Token::Comma | Token::LParen | Token::LBracket | Token::LBrace | Token::Period => true,
            token => is_operator(token),
        };
    }
    Ok(())
}

/// The unfinished CASE expressions and words inside one pair of brackets.
#[derive(Default)]
struct Level {
    /// The number of CASE expressions that have no END yet.
    cases: usize,
    /// The number of consecutive [`REPARSED`] words directly before the current token.
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
