//! What may be asked: one statement, a query, and nothing else.
//!
//! In: a text. Out: a parsed statement that reads, with its placeholders numbered. Everything else is refused by its name.
//! The plan made of it is checked once more ([`check_plan`]): two gates, either of which would do.
//!
//! **Invariant:** the text is read by the engine's own tokenizer and parser, never searched or edited as text.

use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::error::of_engine;
use crate::query::parameters;

/// How deep a statement may be nested.
const DEPTH_MAX: usize = 50;

/// Parses one statement and refuses everything that is not a query.
pub(super) fn parse(sql: &str, config: &QueryConfig) -> Result<Statement> {
    if sql.len() > config.sql_bytes_max {
        return Err(Error::limited(format!(
            "the statement has {} bytes, more than {} (limit query.sql_bytes_max)",
            sql.len(),
            config.sql_bytes_max
        )));
    }
    let fault = |fault: DataFusionError| of_engine(fault, config);
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| fault(DataFusionError::from(ParserError::from(error))))?;
    let word = first_word(&tokens);
    let tokens = parameters::number(tokens)?;
    let mut parser =
        DFParserBuilder::new(tokens).with_dialect(&dialect).with_recursion_limit(DEPTH_MAX).build().map_err(fault)?;
    // The engine's parser has words of its own (COPY, CREATE EXTERNAL TABLE): a refusal is clearer than its complaints.
    let parsed = parser.parse_statements();
    let mut statements = match parsed {
        Ok(statements) => statements,
        Err(error) => {
            refuse_word(&word)?;
            return Err(fault(error));
        }
    };
    if statements.len() > 1 {
        return Err(Error::invalid("there is more than one statement: send them one by one"));
    }
    let statement = statements.pop_front().ok_or_else(|| Error::invalid("the statement is empty"))?;
    check(&statement, &word)?;
    Ok(statement)
}

/// Refuses a plan that does anything but read, however deep inside.
pub(super) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|fault| refused("this").with_source(fault))
}

fn check(statement: &Statement, word: &str) -> Result<()> {
    match statement {
        Statement::Statement(statement) => check_sql(statement, word),
        Statement::Explain(explain) => match &*explain.statement {
            Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => check_sql(inner, word),
            inner => Err(refused(&format!("EXPLAIN {}", word_of(&inner.to_string())))),
        },
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

fn check_sql(statement: &ast::Statement, word: &str) -> Result<()> {
    use ast::Statement as Sql;
    match statement {
        Sql::Query(query) => check_query(query),
        Sql::Explain { statement, .. } => match &**statement {
            Sql::Query(query) => check_query(query),
            inner => Err(refused(&format!("EXPLAIN {}", word_of(&inner.to_string())))),
        },
        Sql::ExplainTable { .. } | Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowFunctions { .. } => {
            Ok(())
        }
        Sql::ShowVariable { .. } | Sql::ShowVariables { .. } | Sql::ShowStatus { .. } => {
            Err(refused("SHOW of engine options"))
        }
        _ => Err(refused(word)),
    }
}

/// A query may hold statements that write: `WITH x AS (DELETE …)`, `INSERT … ` as its body.
fn check_query(query: &ast::Query) -> Result<()> {
    let with = query.with.iter().flat_map(|with| &with.cte_tables);
    with.map(|cte| &*cte.query).try_for_each(check_query)?;
    check_body(&query.body)
}

fn check_body(body: &ast::SetExpr) -> Result<()> {
    match body {
        ast::SetExpr::Query(query) => check_query(query),
        ast::SetExpr::SetOperation { left, right, .. } => check_body(left).and_then(|()| check_body(right)),
        ast::SetExpr::Select(select) if select.into.is_some() => Err(refused("SELECT INTO")),
        ast::SetExpr::Select(_) | ast::SetExpr::Values(_) | ast::SetExpr::Table(_) => Ok(()),
        other => Err(refused(&word_of(&other.to_string()))),
    }
}

/// Refuses by name a statement whose first word we know, and which does not even parse.
fn refuse_word(word: &str) -> Result<()> {
    const WRITES: [&str; 19] = [
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "CREATE",
        "DROP",
        "ALTER",
        "TRUNCATE",
        "COPY",
        "SET",
        "RESET",
        "PREPARE",
        "EXECUTE",
        "DEALLOCATE",
        "GRANT",
        "REVOKE",
        "ATTACH",
        "INSTALL",
        "LOAD",
    ];
    if WRITES.contains(&word) { Err(refused(word)) } else { Ok(()) }
}

fn refused(what: &str) -> Error {
    let way_out = match what.split(' ').next().unwrap_or_default() {
        "INSERT" | "MERGE" | "COPY" => "; send events through POST /v1/tables/{table}/events or Flight SQL bulk ingest",
        "SET" | "RESET" | "SHOW" => "; options of the engine belong to the server",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => "; prepare through the client's own call instead",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
            "; each query sees one complete snapshot, so there is nothing to begin or to end"
        }
        _ => "",
    };
    Error::forbidden(format!("{what} is not allowed: Glasshouse answers queries only{way_out}"))
}

/// The first word of a statement, in capitals.
fn first_word(tokens: &[TokenWithSpan]) -> String {
    tokens
        .iter()
        .find_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_ascii_uppercase()),
            _ => None,
        })
        .unwrap_or_else(|| "this".to_owned())
}

fn word_of(text: &str) -> String {
    text.split_whitespace().next().unwrap_or("this").to_ascii_uppercase()
}
