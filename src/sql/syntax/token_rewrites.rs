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
//! | `'a' 'b'`, `1 'b'` | refused. The parser takes `'b'` for an alias |
//! | `__subquery_1` | refused. The name is reserved |
//! | `a # b` | refused. The parser does not know the operator, and takes `#b` for a name |

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
    let token = |position: usize| words.get(position).map(|index| &tokens[*index].token);
    let mut edits = Edits::default();
    // An entry for each open parenthesis: the index of its token if the parenthesis begins a subquery that is the first
    // element of an IN list, otherwise `None`.
    let mut parentheses = Vec::new();
    // An entry for each BETWEEN whose AND has not been reached: the nesting depth, and whether it is SYMMETRIC.
    let mut ranges = Vec::new();
    // The number of CASE expressions that are open.
    let mut cases = 0_usize;
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
                    edits.dropped.extend(&words[position..position + length]);
                }
                braces.push(escape.is_some());
            }
            Some(Token::RBrace) if braces.pop() == Some(true) => edits.dropped.push(words[position]),
            Some(first) if is_keyword(first, Keyword::CASE) => cases += 1,
            Some(first) if is_keyword(first, Keyword::END) => cases = cases.saturating_sub(1),
            Some(first) if is_keyword(first, Keyword::BETWEEN) => {
                let is_next = |keyword| token(position + 1).is_some_and(|next| is_keyword(next, keyword));
                let is_symmetric = is_next(Keyword::SYMMETRIC);
                if is_symmetric || is_next(Keyword::ASYMMETRIC) {
                    edits.dropped.push(words[position + 1]);
                }
                if is_symmetric {
                    edits.after.insert(words[position], vec![Token::make_word(SYMMETRIC_BOUND, None), Token::LParen]);
                }
                ranges.push((parentheses.len() + cases, is_symmetric));
            }
            Some(first) if is_keyword(first, Keyword::AND) => {
                if let Some((_, is_symmetric)) = ranges.pop_if(|(depth, _)| *depth == parentheses.len() + cases)
                    && is_symmetric
                {
                    edits.before.insert(words[position], vec![Token::RParen]);
                }
            }
            Some(first) if is_keyword(first, Keyword::AS) => {
                let is_negated = token(position + 1).is_some_and(|next| is_keyword(next, Keyword::NOT));
                let at = position + 1 + usize::from(is_negated);
                let is_hint = token(at).is_some_and(|next| is_keyword(next, Keyword::MATERIALIZED))
                    && token(at + 1) == Some(&Token::LParen);
                if is_hint {
                    edits.dropped.extend(&words[position + 1..=at]);
                }
            }
            Some(Token::LParen) => {
                if begins_quantified_query(position, &token) {
                    let with = [
                        Token::make_keyword("WITH"),
                        Token::make_word("__first", Some('"')),
                        Token::make_keyword("AS"),
                    ];
                    let query =
                        [Token::LParen, Token::make_keyword("SELECT"), Token::Number("1".into(), false), Token::RParen];
                    edits.after.insert(words[position], with.into_iter().chain(query).collect());
                }
                parentheses.push(begins_first_subquery(position, &token).then(|| words[position]));
            }
            Some(Token::RParen) => {
                if let Some(Some(start)) = parentheses.pop()
                    && token(position + 1) == Some(&Token::Comma)
                {
                    edits.before.insert(start, vec![Token::make_keyword("coalesce"), Token::LParen]);
                    edits.after.insert(words[position], vec![Token::RParen]);
                }
            }
            _ => {}
        }
    }
    Ok(edits.apply(tokens))
}

/// Tokens to remove and to insert, by the indexes of tokens.
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

/// Returns true if the parenthesis at `position` encloses the query of ANY, SOME or ALL, and the query begins with a
/// parenthesis itself. The parser would take this query for a value.
fn begins_quantified_query<'a>(position: usize, token: &impl Fn(usize) -> Option<&'a Token>) -> bool {
    const QUANTIFIERS: [Keyword; 3] = [Keyword::ANY, Keyword::SOME, Keyword::ALL];
    let is_any = |position: usize, words: &[Keyword]| {
        token(position).is_some_and(|token| words.iter().any(|word| is_keyword(token, *word)))
    };
    position >= 1
        && is_any(position - 1, &QUANTIFIERS)
        && token(position + 1) == Some(&Token::LParen)
        && is_any(position + 2, &QUERIES)
}

/// Returns true if the parenthesis at `position` begins a subquery that is the first element of an IN list. The parser
/// would interpret this subquery as the whole list.
fn begins_first_subquery<'a>(position: usize, token: &impl Fn(usize) -> Option<&'a Token>) -> bool {
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
        ] {
            assert_eq!(rewritten(sql).as_deref(), expected, "{sql}");
        }
    }
}
