//! Rewrites tokens that the engine's parser does not know, and refuses tokens that it misunderstands.
//!
//! | in the statement | parsed as |
//! |---|---|
//! | `WITH x AS MATERIALIZED (…)`, `AS NOT MATERIALIZED (…)` | `WITH x AS (…)` |
//! | `{oj a LEFT JOIN b ON …}`, an escape of ODBC | `a LEFT JOIN b ON …` |
//! | `LIKE 'a!%' {escape '!'}`, an escape of ODBC | `LIKE 'a!%' ESCAPE '!'` |
//! | `x IN ((SELECT …), 2)` | `x IN (coalesce((SELECT …)), 2)` |
//! | `x = ANY ((SELECT …) EXCEPT …)` | `x = ANY (WITH "__first" AS (SELECT 1) (SELECT …) EXCEPT …)` |
//! | `x BETWEEN SYMMETRIC a AND b` | `x BETWEEN symmetric_bound(a) AND b` (see `row_comparisons`) |
//! | `doc#>>'{a}'`, `doc#>'{a}'` | `doc #>> '{a}'`, `doc #> '{a}'`. The parser would treat `doc#` as a name |
//! | `'a' 'b'`, `1 'b'` | refused. The parser would treat `'b'` as an alias |
//! | `1_000`, `0b101`, `2x` | refused. The parser would treat the characters after the digits as an alias |
//! | `__subquery_1` | refused. The name is reserved |
//! | `a # b` | refused. The parser does not know the operator, and would treat `#b` as a name |

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::{Error, Result};
use crate::sql::decorrelate::NAME_PREFIX;

/// The function that marks the first bound of BETWEEN SYMMETRIC.
pub(in crate::sql::syntax) const SYMMETRIC_BOUND: &str = "symmetric_bound";
/// The keywords with which a query begins.
const QUERIES: [Keyword; 2] = [Keyword::SELECT, Keyword::WITH];

/// Rewrites the tokens of a statement.
pub(crate) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let words: Vec<usize> = (0..tokens.len()).filter(|index| !is_space(&tokens[*index].token)).collect();
    let mut rewriter = Rewriter { tokens: &tokens, words, ..Rewriter::default() };
    for position in 0..rewriter.words.len() {
        check_name(rewriter.token(position))?;
        check_operator(rewriter.token(position))?;
        check_text(rewriter.token(position), rewriter.token(position + 1))?;
        check_number(&tokens[rewriter.words[position]..])?;
        rewriter.visit(position);
    }
    let edits = rewriter.edits;
    Ok(edits.apply(tokens))
}

/// Finds the tokens to remove and to insert, in one pass. A position counts only the tokens that are not whitespace.
#[derive(Default)]
struct Rewriter<'a> {
    tokens: &'a [TokenWithSpan],
    /// The index of the token at each position.
    words: Vec<usize>,
    edits: Edits,
    /// An entry for each open parenthesis: the index of its token if the parenthesis begins a subquery that is the first
    /// element of an IN list, otherwise `None`.
    parentheses: Vec<Option<usize>>,
    /// An entry for each BETWEEN whose AND has not been reached: the nesting depth, and whether it is SYMMETRIC.
    ranges: Vec<(usize, bool)>,
    /// The number of CASE expressions that are open.
    cases: usize,
    /// An entry for each open brace, which is true if the brace belongs to an escape that is removed.
    braces: Vec<bool>,
}

impl Rewriter<'_> {
    fn token(&self, position: usize) -> Option<&Token> {
        self.words.get(position).map(|index| &self.tokens[*index].token)
    }

    fn is_any(&self, position: usize, keywords: &[Keyword]) -> bool {
        self.token(position).is_some_and(|token| keywords.iter().any(|keyword| is_keyword(token, *keyword)))
    }

    fn visit(&mut self, position: usize) {
        match self.token(position) {
            Some(Token::LBrace) => {
                let escape = escape_at(self.token(position + 1), self.token(position + 2));
                if let Some(length) = escape {
                    self.edits.dropped.extend(&self.words[position..position + length]);
                }
                self.braces.push(escape.is_some());
            }
            Some(Token::RBrace) => self.close_brace(position),
            Some(Token::LParen) => self.open_parenthesis(position),
            Some(Token::RParen) => {
                if let Some(Some(start)) = self.parentheses.pop()
                    && self.token(position + 1) == Some(&Token::Comma)
                {
                    self.edits.before.insert(start, vec![Token::make_keyword("coalesce"), Token::LParen]);
                    self.edits.after.insert(self.words[position], vec![Token::RParen]);
                }
            }
            Some(Token::Word(Word { value, quote_style: None, .. })) if value.ends_with('#') => {
                self.split_name(position)
            }
            Some(Token::Word(Word { keyword, quote_style: None, .. })) => match keyword {
                Keyword::CASE => self.cases += 1,
                Keyword::END => self.cases = self.cases.saturating_sub(1),
                Keyword::BETWEEN => self.begin_range(position),
                Keyword::AND => self.end_range(position),
                Keyword::AS => self.drop_hint(position),
                _ => {}
            },
            _ => {}
        }
    }

    /// Moves the `#` at the end of a name to the operator that directly follows.
    fn split_name(&mut self, position: usize) {
        let index = self.words[position];
        let (name, next) = (self.token(position), self.tokens.get(index + 1).map(|next| &next.token));
        let Some(name) = name.and_then(|name| Some(name.to_string().strip_suffix('#')?.to_owned())) else { return };
        let operator = match next {
            Some(Token::Gt) => Token::HashArrow,
            Some(Token::ShiftRight) => Token::HashLongArrow,
            _ => return,
        };
        if !name.is_empty() {
            self.edits.dropped.extend([index, index + 1]);
            self.edits.before.insert(index, vec![Token::make_word(&name, None), operator]);
        }
    }

    fn close_brace(&mut self, position: usize) {
        if self.braces.pop() == Some(true) {
            self.edits.dropped.push(self.words[position]);
        }
    }

    fn open_parenthesis(&mut self, position: usize) {
        let before = position.checked_sub(1);
        // The query of ANY, SOME or ALL itself begins with a parenthesis. The parser would treat it as a value.
        if before.is_some_and(|before| self.is_any(before, &[Keyword::ANY, Keyword::SOME, Keyword::ALL]))
            && self.token(position + 1) == Some(&Token::LParen)
            && self.is_any(position + 2, &QUERIES)
        {
            let with = [Token::make_keyword("WITH"), Token::make_word("__first", Some('"')), Token::make_keyword("AS")];
            let query = [Token::LParen, Token::make_keyword("SELECT"), Token::Number("1".into(), false), Token::RParen];
            self.edits.after.insert(self.words[position], with.into_iter().chain(query).collect());
        }
        // The parser would treat a subquery that is the first element of an IN list as the whole list.
        let is_first = before.is_some_and(|before| self.token(before) == Some(&Token::LParen))
            && position.checked_sub(2).is_some_and(|before| self.is_any(before, &[Keyword::IN]))
            && self.is_any(position + 1, &QUERIES);
        self.parentheses.push(is_first.then(|| self.words[position]));
    }

    fn depth(&self) -> usize {
        self.parentheses.len() + self.cases
    }

    fn begin_range(&mut self, position: usize) {
        let is_symmetric = self.is_any(position + 1, &[Keyword::SYMMETRIC]);
        if is_symmetric || self.is_any(position + 1, &[Keyword::ASYMMETRIC]) {
            self.edits.dropped.push(self.words[position + 1]);
        }
        if is_symmetric {
            let mark = vec![Token::make_word(SYMMETRIC_BOUND, None), Token::LParen];
            self.edits.after.insert(self.words[position], mark);
        }
        self.ranges.push((self.depth(), is_symmetric));
    }

    fn end_range(&mut self, position: usize) {
        let depth = self.depth();
        if let Some((_, true)) = self.ranges.pop_if(|(begun, _)| *begun == depth) {
            self.edits.before.insert(self.words[position], vec![Token::RParen]);
        }
    }

    /// Drops `MATERIALIZED` or `NOT MATERIALIZED` after AS.
    fn drop_hint(&mut self, position: usize) {
        let at = position + 1 + usize::from(self.is_any(position + 1, &[Keyword::NOT]));
        if self.is_any(at, &[Keyword::MATERIALIZED]) && self.token(at + 1) == Some(&Token::LParen) {
            self.edits.dropped.extend(&self.words[position + 1..=at]);
        }
    }
}

/// The tokens to remove and to insert, keyed by token index.
#[derive(Default)]
struct Edits {
    /// The indexes of the tokens to remove, in ascending order.
    dropped: Vec<usize>,
    before: BTreeMap<usize, Vec<Token>>,
    after: BTreeMap<usize, Vec<Token>>,
}

impl Edits {
    fn apply(mut self, tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
        if self.dropped.is_empty() && self.before.is_empty() && self.after.is_empty() {
            return tokens;
        }
        let mut edited = Vec::with_capacity(tokens.len() + 8 * (self.before.len() + self.after.len()));
        for (index, token) in tokens.into_iter().enumerate() {
            let span = token.span;
            let placed = |token| TokenWithSpan::new(token, span);
            edited.extend(self.before.remove(&index).into_iter().flatten().map(placed));
            if self.dropped.binary_search(&index).is_err() {
                edited.push(token);
            }
            edited.extend(self.after.remove(&index).into_iter().flatten().map(placed));
        }
        edited
    }
}

/// Refuses a name that the decorrelation of subqueries could mistake for one of its own columns.
fn check_name(token: Option<&Token>) -> Result<()> {
    let Some(Token::Word(Word { value, .. })) = token else { return Ok(()) };
    let is_reserved = value.get(..NAME_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME_PREFIX));
    if is_reserved {
        return Err(Error::invalid(format!(
            "the name `{value}` is reserved: use a name that does not begin with {NAME_PREFIX}"
        )));
    }
    Ok(())
}

/// Returns the number of tokens to remove at the beginning of an ODBC escape: the brace and, in an outer join, the word
/// `oj`. Returns `None` if the brace does not begin an ODBC escape.
fn escape_at(first: Option<&Token>, second: Option<&Token>) -> Option<usize> {
    match (first?, second?) {
        (Token::Word(word), Token::SingleQuotedString(_)) if is_named(word, "escape") => Some(1),
        (Token::Word(word), Token::Word(_) | Token::LBrace | Token::LParen) if is_named(word, "oj") => Some(2),
        _ => None,
    }
}

fn check_text(first: Option<&Token>, second: Option<&Token>) -> Result<()> {
    let is_value = |token: &Token| matches!(token, Token::SingleQuotedString(_) | Token::Number(..));
    if first.is_some_and(is_value) && matches!(second, Some(Token::SingleQuotedString(_))) {
        return Err(Error::invalid(
            "a string directly follows another value: join strings with ||, or write AS before an alias",
        ));
    }
    Ok(())
}

/// Checks the first of these tokens, and the token directly after it.
fn check_number(tokens: &[TokenWithSpan]) -> Result<()> {
    match tokens {
        [TokenWithSpan { token: Token::Number(digits, _), .. }, TokenWithSpan { token: Token::Word(word), .. }, ..]
            if word.quote_style.is_none() =>
        {
            Err(Error::invalid(format!(
                "`{digits}{}` has characters after the number: write only digits, or a space and AS before an alias",
                word.value
            )))
        }
        _ => Ok(()),
    }
}

fn check_operator(token: Option<&Token>) -> Result<()> {
    let is_operator = match token {
        Some(Token::Sharp) => true,
        Some(Token::Word(word)) => word.quote_style.is_none() && word.value.starts_with('#'),
        _ => false,
    };
    if is_operator {
        return Err(Error::unsupported("the operator # is not supported: write (a | b) - (a & b) instead of a # b"));
    }
    Ok(())
}

fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}

fn is_keyword(token: &Token, expected: Keyword) -> bool {
    matches!(token, Token::Word(Word { keyword, quote_style: None, .. }) if *keyword == expected)
}

fn is_named(word: &Word, name: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn rewritten(sql: &str) -> Option<String> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
        let tokens = rewrite(tokens).ok()?;
        let text: String = tokens.iter().map(|token| token.token.to_string()).collect();
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn unknown_tokens_are_dropped() {
        for (sql, expected) in [
            ("WITH a AS MATERIALIZED (x) y", Some("WITH a AS (x) y")),
            ("WITH a AS NOT MATERIALIZED (x), b AS materialized(y)", Some("WITH a AS (x), b AS (y)")),
            ("SELECT 1 AS materialized", Some("SELECT 1 AS materialized")),
            (
                "FROM {oj a LEFT JOIN {oj b JOIN c ON x} ON y} WHERE z",
                Some("FROM a LEFT JOIN b JOIN c ON x ON y WHERE z"),
            ),
            ("a LIKE 'b' {escape '!'}", Some("a LIKE 'b' escape '!'")),
            ("{d '2026-01-01'}", Some("{d '2026-01-01'}")),
            ("{'oj': {oj: 1}}", Some("{'oj': {oj: 1}}")),
            ("} {oj", Some("} {oj")),
            ("x IN ((SELECT (1)), 2)", Some("x IN (coalesce((SELECT (1))), 2)")),
            ("x IN ((SELECT 1))", Some("x IN ((SELECT 1))")),
            ("x IN ((SELECT 1) UNION (SELECT 2))", Some("x IN ((SELECT 1) UNION (SELECT 2))")),
            (
                "x IN ((SELECT y IN ((SELECT 1), 3)), 2)",
                Some("x IN (coalesce((SELECT y IN (coalesce((SELECT 1)), 3))), 2)"),
            ),
            ("x IN ((SELECT 1, 2", Some("x IN ((SELECT 1, 2")),
            (
                "x > ALL ((SELECT 1) EXCEPT SELECT 2)",
                Some("x > ALL (WITH\"__first\"AS(SELECT1)(SELECT 1) EXCEPT SELECT 2)"),
            ),
            ("x > ANY (ARRAY[1])", Some("x > ANY (ARRAY[1])")),
            (
                "x BETWEEN SYMMETRIC (a AND b) AND 3 AND y BETWEEN ASYMMETRIC 1 AND 2",
                Some("x BETWEENsymmetric_bound( (a AND b) )AND 3 AND y BETWEEN 1 AND 2"),
            ),
            (
                "x BETWEEN SYMMETRIC CASE WHEN a AND b THEN 1 END AND 3",
                Some("x BETWEENsymmetric_bound( CASE WHEN a AND b THEN 1 END )AND 3"),
            ),
            ("SELECT 'a' 'b'", None),
            ("SELECT 1 'b'", None),
            ("SELECT 'a', 'b'", Some("SELECT 'a', 'b'")),
            ("a # b", None),
            ("a #b", None),
            ("\"#b\"", Some("\"#b\"")),
            ("a#>>'{b}'#>'{c}'", Some("a#>>'{b}'#>'{c}'")),
            ("t.a#> '{b}'", Some("t.a#> '{b}'")),
        ] {
            assert_eq!(rewritten(sql).as_deref(), expected, "{sql}");
        }
    }
}
