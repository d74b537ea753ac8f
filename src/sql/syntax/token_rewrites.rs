//! Rewrites tokens that the engine's parser does not know, and refuses tokens that it misunderstands.
//!
//! | in the statement | parsed as |
//! |---|---|
//! | `WITH x AS MATERIALIZED (…)`, `AS NOT MATERIALIZED (…)` | `WITH x AS (…)` |
//! | `{oj a LEFT JOIN b ON …}`, an escape of ODBC | `a LEFT JOIN b ON …` |
//! | `LIKE 'a!%' {escape '!'}`, an escape of ODBC | `LIKE 'a!%' ESCAPE '!'` |
//! | `x IN ((SELECT …), 2)` | `x IN (coalesce((SELECT …)), 2)` |
//! | `'a' 'b'`, `1 'b'` | refused. The parser takes `'b'` for an alias |
//! | `__subquery_1` | refused. The name is reserved |
//! | `a # b` | refused. The parser does not know the operator, and takes `#b` for a name |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::error::{Error, Result};
use crate::sql::decorrelate::NAME_PREFIX;

/// Rewrites the tokens of a statement.
pub(crate) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let words: Vec<usize> = (0..tokens.len()).filter(|index| !is_space(&tokens[*index].token)).collect();
    let token = |position: usize| words.get(position).map(|index| &tokens[*index].token);
    let mut dropped = Vec::new();
    // An entry for each open parenthesis: the index of its token if the parenthesis begins a subquery that is the first
    // element of an IN list, otherwise `None`.
    let mut parentheses = Vec::new();
    // The indexes of tokens before which `coalesce(` is inserted, and of those after which `)` is inserted.
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    // An entry for each open brace, which is true if the brace belongs to an escape that is removed.
    let mut braces = Vec::new();
    for position in 0..words.len() {
        check_name(token(position))?;
        check_operator(token(position))?;
        check_text(token(position), token(position + 1))?;
        match token(position) {
            Some(Token::LBrace) => {
                let escape = escape_at(token(position + 1), token(position + 2));
                if let Some(length) = escape {
                    dropped.extend(&words[position..position + length]);
                }
                braces.push(escape.is_some());
            }
            Some(Token::RBrace) if braces.pop() == Some(true) => dropped.push(words[position]),
            Some(first) if is_keyword(first, Keyword::AS) => {
                let is_negated = token(position + 1).is_some_and(|next| is_keyword(next, Keyword::NOT));
                let at = position + 1 + usize::from(is_negated);
                let is_hint = token(at).is_some_and(|next| is_keyword(next, Keyword::MATERIALIZED))
                    && token(at + 1) == Some(&Token::LParen);
                if is_hint {
                    dropped.extend(&words[position + 1..=at]);
                }
            }
            Some(Token::LParen) => parentheses.push(begins_first_subquery(position, &token).then(|| words[position])),
            Some(Token::RParen) => {
                if let Some(Some(start)) = parentheses.pop()
                    && token(position + 1) == Some(&Token::Comma)
                {
                    opened.push(start);
                    closed.push(words[position]);
                }
            }
            _ => {}
        }
    }
    if dropped.is_empty() && opened.is_empty() {
        return Ok(tokens);
    }
    opened.sort_unstable();
    Ok(edited(tokens, &dropped, &opened, &closed))
}

/// Removes the tokens at the indexes `dropped`, and inserts `coalesce(` before the tokens at `opened` and `)` after the
/// tokens at `closed`.
fn edited(tokens: Vec<TokenWithSpan>, dropped: &[usize], opened: &[usize], closed: &[usize]) -> Vec<TokenWithSpan> {
    let mut rewritten = Vec::with_capacity(tokens.len() + 3 * opened.len());
    for (index, token) in tokens.into_iter().enumerate() {
        let span = token.span;
        if opened.binary_search(&index).is_ok() {
            rewritten
                .extend([Token::make_keyword("coalesce"), Token::LParen].map(|token| TokenWithSpan::new(token, span)));
        }
        if dropped.binary_search(&index).is_err() {
            rewritten.push(token);
        }
        if closed.binary_search(&index).is_ok() {
            rewritten.push(TokenWithSpan::new(Token::RParen, span));
        }
    }
    rewritten
}

/// Returns true if the parenthesis at `position` begins a subquery that is the first element of an IN list. The parser
/// would interpret this subquery as the whole list.
fn begins_first_subquery<'a>(position: usize, token: &impl Fn(usize) -> Option<&'a Token>) -> bool {
    const QUERIES: [Keyword; 2] = [Keyword::SELECT, Keyword::WITH];
    let is_in_list = position >= 2
        && token(position - 2).is_some_and(|token| is_keyword(token, Keyword::IN))
        && token(position - 1) == Some(&Token::LParen);
    is_in_list && token(position + 1).is_some_and(|token| QUERIES.iter().any(|word| is_keyword(token, *word)))
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
/// `oj`. Returns `None` if the brace begins something else.
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
            "a string follows directly after another value: join strings with ||, or write AS before an alias",
        ));
    }
    Ok(())
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
            ("SELECT 'a' 'b'", None),
            ("SELECT 1 'b'", None),
            ("SELECT 'a', 'b'", Some("SELECT 'a', 'b'")),
            ("a # b", None),
            ("a #b", None),
            ("\"#b\"", Some("\"#b\"")),
        ] {
            assert_eq!(rewritten(sql).as_deref(), expected, "{sql}");
        }
    }
}
