//! Expands the command `TABLE t` to `SELECT * FROM t`.
//!
//! The command is replaced before parsing, because the parser skips the two tokens after `TABLE t`. Otherwise, `TABLE t
//! LIMIT 1` would lose its limit.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

/// Replaces `TABLE` with `SELECT * FROM` wherever a query can begin.
pub(crate) fn expand(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|token| is_keyword(&token.token, &[Keyword::TABLE])) {
        return tokens;
    }
    let mut expanded = Vec::with_capacity(tokens.len() + 5);
    let mut previous = None;
    for (index, token) in tokens.iter().enumerate() {
        let is_space = matches!(token.token, Token::Whitespace(_));
        if is_keyword(&token.token, &[Keyword::TABLE]) && can_begin(previous) && is_name_next(&tokens[index + 1..]) {
            let space = || Token::Whitespace(Whitespace::Space);
            let words = [Token::make_keyword("SELECT"), space(), Token::Mul, space(), Token::make_keyword("FROM")];
            expanded.extend(words.map(|word| TokenWithSpan { token: word, span: token.span }));
        } else {
            expanded.push(token.clone());
        }
        if !is_space {
            previous = Some(&token.token);
        }
    }
    expanded
}

/// Returns true if a query can begin after `previous`.
fn can_begin(previous: Option<&Token>) -> bool {
    use Keyword::{ALL, DISTINCT, EXCEPT, EXPLAIN, INTERSECT, UNION};
    match previous {
        None | Some(Token::LParen | Token::RParen) => true,
        Some(token) => is_keyword(token, &[ALL, DISTINCT, EXCEPT, EXPLAIN, INTERSECT, UNION]),
    }
}

/// Returns true if the next token is a name. If it is a keyword, the preceding `table` is not the command, but an alias
/// or a column.
fn is_name_next(tokens: &[TokenWithSpan]) -> bool {
    let next = tokens.iter().map(|token| &token.token).find(|token| !matches!(token, Token::Whitespace(_)));
    matches!(next, Some(Token::Word(Word { keyword: Keyword::NoKeyword, .. })))
}

fn is_keyword(token: &Token, keywords: &[Keyword]) -> bool {
    matches!(token, Token::Word(Word { keyword, quote_style: None, .. }) if keywords.contains(keyword))
}
