//! Parses SQL text and accepts only a single read-only query.
//!
//! The result is a syntax tree with numbered placeholders. The error for any other statement names the statement's
//! kind, such as `INSERT`. [`check_plan`] checks the plan that is built from the tree. Even if one of the two checks
//! had a gap, the other would refuse a statement that writes.
//!
//! **Invariant:** only the engine's own tokenizer and parser interpret the text. Glasshouse never searches or rewrites
//! SQL text.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement, TransactionConclusion, WriteOp};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, Visit as _};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::error::from_engine;
use crate::query::planning::parameters;
use crate::query::planning::table_reads::TableReads;
use crate::query::planning::token_limits;
use crate::sql::syntax::{table_command, token_rewrites};

/// The maximum nesting depth of expressions and queries in a statement.
const DEPTH_MAX: usize = 50;

/// The minimum stack size in bytes for a thread that plans and runs statements. A chain of `CHAIN_MAX` operators needs
/// a third of this size.
pub const STACK_BYTES_MIN: usize = 16 << 20;
/// The maximum number of table references in a statement. If a table is referenced several times, each reference
/// counts.
pub(in crate::query) const RELATIONS_MAX: usize = 100;

/// The maximum number of window functions in a statement. The engine's planner compares each of them with all others.
pub(in crate::query) const WINDOWS_MAX: usize = 100;

/// Parses a single statement, and refuses it unless it is a query.
pub(in crate::query) fn parse(sql: &str, config: &QueryConfig) -> Result<Statement> {
    if sql.len() > config.sql_bytes_max {
        return Err(Error::limited(format!(
            "the statement has {} bytes, but at most {} are allowed (limit query.sql_bytes_max)",
            sql.len(),
            config.sql_bytes_max
        )));
    }
    let to_error = |error: DataFusionError| from_engine(error, config);
    let dialect = GenericDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|error| to_error(DataFusionError::from(ParserError::from(error))))?;
    let keyword = first_keyword(&tokens);
    token_limits::check(&tokens)?;
    let tokens = parameters::number(token_rewrites::rewrite(table_command::expand(tokens))?)?;
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&dialect)
        .with_recursion_limit(DEPTH_MAX)
        .build()
        .map_err(to_error)?;
    // The engine's parser also supports statements such as COPY, which are always refused. Even if such a statement
    // contains a syntax error, report that the statement is refused, which is clearer than the syntax error.
    let parsed = parser.parse_statements();
    let mut statements = match parsed {
        Ok(statements) => statements,
        Err(error) => {
            refuse_writes(&keyword)?;
            return Err(to_error(error));
        }
    };
    if statements.len() > 1 {
        return Err(Error::invalid("the text has more than one statement: send one statement per request"));
    }
    let statement = statements.pop_front().ok_or_else(|| Error::invalid("the statement is empty"))?;
    check(&statement, &keyword)?;
    Ok(statement)
}

/// Refuses a plan unless all of its nodes only read data. The error names the kind of statement.
pub(in crate::query) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let explain = if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) { "EXPLAIN " } else { "" };
    let mut keyword = None;
    let walked = plan.apply_with_subqueries(|node| {
        keyword = node_keyword(node);
        Ok(if keyword.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    keyword.map_or(Ok(()), |keyword| Err(refused(&format!("{explain}{keyword}"))))
}

/// Returns the SQL keyword of a plan node, or `None` if the node only reads data. The match has no wildcard arm, so if
/// DataFusion adds a kind of node, this code does not compile until the kind is added here.
fn node_keyword(node: &LogicalPlan) -> Option<Cow<'static, str>> {
    let keyword = match node {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(_)) => "CREATE EXTERNAL TABLE",
        LogicalPlan::Ddl(
            DdlStatement::DropTable(_)
            | DdlStatement::DropView(_)
            | DdlStatement::DropCatalogSchema(_)
            | DdlStatement::DropFunction(_),
        ) => "DROP",
        LogicalPlan::Ddl(_) => "CREATE",
        LogicalPlan::Dml(write) => match write.op {
            WriteOp::Insert(_) => "INSERT",
            WriteOp::Delete => "DELETE",
            WriteOp::Update => "UPDATE",
            WriteOp::Ctas => "CREATE",
            WriteOp::Truncate => "TRUNCATE",
            WriteOp::MergeInto(_) => "MERGE",
            _ => "this",
        },
        LogicalPlan::Copy(_) => "COPY",
        LogicalPlan::Statement(statement) => match statement {
            PlanStatement::TransactionStart(_) => "START",
            PlanStatement::TransactionEnd(end) => match end.conclusion {
                TransactionConclusion::Commit => "COMMIT",
                TransactionConclusion::Rollback => "ROLLBACK",
            },
            PlanStatement::SetVariable(_) => "SET",
            PlanStatement::ResetVariable(_) => "RESET",
            PlanStatement::Prepare(_) => "PREPARE",
            PlanStatement::Execute(_) => "EXECUTE",
            PlanStatement::Deallocate(_) => "DEALLOCATE",
        },
        LogicalPlan::Extension(extension) => {
            return Some(format!("the plan node {}", extension.node.name()).into());
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::DescribeTable(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => return None,
    };
    Some(keyword.into())
}

fn check(statement: &Statement, keyword: &str) -> Result<()> {
    match statement {
        Statement::Statement(statement) => check_sql(statement, keyword),
        Statement::Explain(explain) => match &*explain.statement {
            Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)) => check_sql(inner, keyword),
            inner => Err(refused(&format!("EXPLAIN {}", keyword_of(&inner.to_string())))),
        },
        Statement::CreateExternalTable(_) => Err(refused("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => Err(refused("COPY")),
        Statement::Reset(_) => Err(refused("RESET")),
    }
}

fn check_sql(statement: &ast::Statement, keyword: &str) -> Result<()> {
    use ast::Statement as Sql;
    match statement {
        Sql::Query(_) | Sql::ExplainTable { .. } => {}
        Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowFunctions { .. } => {}
        Sql::Explain { statement, .. } if matches!(**statement, Sql::Query(_)) => {}
        Sql::Explain { statement, .. } => {
            return Err(refused(&format!("EXPLAIN {}", keyword_of(&statement.to_string()))));
        }
        Sql::ShowVariable { .. } | Sql::ShowVariables { .. } | Sql::ShowStatus { .. } => {
            return Err(refused("SHOW of engine options"));
        }
        _ => return Err(refused(keyword)),
    }
    match statement.visit(&mut ReadOnlyCheck { relations: 0, windows: 0, reads: TableReads::default() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Checks a query and all its subqueries. A query can contain statements that write, for example `WITH x AS (DELETE …)`
/// or an `INSERT` as the body of the query.
struct ReadOnlyCheck {
    relations: usize,
    windows: usize,
    reads: TableReads,
}

impl ast::Visitor for ReadOnlyCheck {
    type Break = Error;

    fn pre_visit_statement(&mut self, statement: &ast::Statement) -> ControlFlow<Error> {
        use ast::Statement as Sql;
        match statement {
            Sql::Insert(_) | Sql::Update(_) | Sql::Delete(_) | Sql::Merge(_) => {
                ControlFlow::Break(refused(&keyword_of(&statement.to_string())))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
        match select.into {
            Some(_) => ControlFlow::Break(refused("SELECT INTO")),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        self.reads.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        self.reads.leave(query).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        self.windows += usize::from(matches!(expr, ast::Expr::Function(call) if call.over.is_some()));
        if self.windows > WINDOWS_MAX { ControlFlow::Break(too_many_windows()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, relation: &ast::TableFactor) -> ControlFlow<Error> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return ControlFlow::Break(too_many_relations());
        }
        self.reads.read(relation).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

pub(in crate::query) fn too_many_relations() -> Error {
    Error::limited(format!("the statement names more than {RELATIONS_MAX} tables"))
}

pub(in crate::query) fn too_many_windows() -> Error {
    Error::limited(format!(
        "the statement has more than {WINDOWS_MAX} window functions: split it into several statements"
    ))
}

/// Called for a statement with a syntax error. Refuses the statement if its first keyword belongs to a statement that
/// writes data or changes options. The error names the keyword.
fn refuse_writes(keyword: &str) -> Result<()> {
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
    if WRITES.contains(&keyword) { Err(refused(keyword)) } else { Ok(()) }
}

fn refused(what: &str) -> Error {
    let advice = match what.split(' ').next().unwrap_or_default() {
        "INSERT" | "MERGE" | "COPY" => "; send events through POST /v1/tables/{table}/events or Flight SQL bulk ingest",
        "SET" | "RESET" | "SHOW" => "; clients cannot read or change engine options",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => "; use the prepared statement API of the client instead",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
            "; transactions are not supported: each query reads one consistent snapshot"
        }
        _ => "",
    };
    Error::forbidden(format!("{what} is not allowed: Glasshouse runs only queries{advice}"))
}

/// Returns the first word of a statement, converted to upper case.
fn first_keyword(tokens: &[TokenWithSpan]) -> String {
    tokens
        .iter()
        .find_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_ascii_uppercase()),
            _ => None,
        })
        .unwrap_or_else(|| "this".to_owned())
}

/// Returns the first word of the SQL text in upper case.
fn keyword_of(text: &str) -> String {
    text.split_whitespace().next().unwrap_or("this").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::query::testing::config;

    #[test]
    fn queries_are_accepted() {
        for sql in [
            "SELECT 1",
            "select 1;",
            "VALUES (1)",
            "(SELECT 1) UNION ALL SELECT 2",
            "WITH t AS (SELECT 1) SELECT * FROM t",
            "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT * FROM t",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
            "EXPLAIN FORMAT TREE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM calls",
            "SHOW FUNCTIONS",
            "DESCRIBE calls",
            "DESCRIBE SELECT 1",
            "/* a comment */ SELECT 1 -- and INSERT another",
        ] {
            parse(sql, &config()).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    #[test]
    fn errors_of_other_statements_name_the_statement() {
        for (sql, name) in [
            ("INSERT INTO calls VALUES (1)", "INSERT"),
            ("insert into calls select * from calls", "INSERT"),
            ("UPDATE calls SET y = 1", "UPDATE"),
            ("DELETE FROM calls", "DELETE"),
            ("MERGE INTO calls USING x ON a = b WHEN MATCHED THEN DELETE", "MERGE"),
            ("TRUNCATE TABLE calls", "TRUNCATE"),
            ("CREATE TABLE t AS SELECT 1", "CREATE"),
            ("CREATE VIEW v AS SELECT 1", "CREATE"),
            ("CREATE SCHEMA s", "CREATE"),
            ("CREATE FUNCTION f() RETURNS INT RETURN 1", "CREATE"),
            ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'", "CREATE EXTERNAL TABLE"),
            ("CREATE EXTERNAL TABLE t", "CREATE"),
            ("DROP TABLE calls", "DROP"),
            ("ALTER TABLE calls ADD COLUMN x INT", "ALTER"),
            ("COPY calls TO '/tmp/x.parquet'", "COPY"),
            ("COPY (SELECT 1) TO 's3://bucket/x' STORED AS CSV", "COPY"),
            ("SET datafusion.execution.batch_size = 1", "SET"),
            ("SET TIME ZONE 'UTC'", "SET"),
            ("RESET datafusion.execution.batch_size", "RESET"),
            ("SHOW ALL", "SHOW of engine options"),
            ("SHOW datafusion.execution.batch_size", "SHOW of engine options"),
            ("SHOW VARIABLES", "SHOW of engine options"),
            ("SHOW CREATE TABLE calls", "SHOW"),
            ("SHOW DATABASES", "SHOW"),
            ("PREPARE p AS SELECT 1", "PREPARE"),
            ("EXECUTE p", "EXECUTE"),
            ("DEALLOCATE p", "DEALLOCATE"),
            ("BEGIN", "BEGIN"),
            ("START TRANSACTION", "START"),
            ("COMMIT", "COMMIT"),
            ("ROLLBACK", "ROLLBACK"),
            ("GRANT SELECT ON calls TO x", "GRANT"),
            ("USE other", "USE"),
            ("KILL 1", "KILL"),
            ("CALL f()", "CALL"),
            ("ATTACH 'x' AS y", "ATTACH"),
            ("INSTALL x", "INSTALL"),
            ("EXPLAIN INSERT INTO calls VALUES (1)", "EXPLAIN INSERT"),
            ("EXPLAIN ANALYZE DELETE FROM calls", "EXPLAIN DELETE"),
            ("EXPLAIN COPY calls TO '/tmp/x.csv'", "EXPLAIN COPY"),
            ("WITH t AS (SELECT 1) INSERT INTO calls SELECT * FROM t", "INSERT"),
            ("WITH t AS (DELETE FROM calls RETURNING *) SELECT * FROM t", "DELETE"),
            ("SELECT * INTO t FROM calls", "SELECT INTO"),
            ("EXPLAIN SELECT * INTO t FROM calls", "SELECT INTO"),
        ] {
            let error = parse(sql, &config()).expect_err(sql);
            assert_eq!(error.kind(), Kind::Forbidden, "{sql}: {error:?}");
            assert!(error.message().starts_with(&format!("{name} is not allowed")), "{sql}: {error:?}");
        }
    }

    #[test]
    fn size_and_depth_of_statements_are_limited() {
        let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
        assert_eq!(parse(&deep, &config()).unwrap_err().kind(), Kind::Limited);
        for (repeated, end) in [
            ("INTERVAL ", "'1 day'"),
            ("CAST(", "1 1"),
            ("FLOOR(", "1 1"),
            ("ARRAY[", "1 1"),
            ("(", "1 1"),
            ("CAST(NULL AS Nested(a ", "INT"),
            ("CAST(NULL AS MAP(TEXT, ", "INT"),
            ("POINT ", "'1'"),
            ("CASE (", "1 1"),
            ("CASE WHEN true THEN ", "1 1"),
            ("CASE WHEN end THEN ", "1"),
            ("CASE WHEN x = (SELECT 1 end) THEN ", "1"),
            ("CASE ", "1"),
            ("NOT (", "1 1"),
        ] {
            for count in [20, 40, 6_000] {
                let error = parse(&format!("SELECT {}{end}", repeated.repeat(count)), &config()).expect_err(repeated);
                assert!(matches!(error.kind(), Kind::Limited | Kind::Invalid), "{repeated} {count}: {error:?}");
            }
        }
        for chain in ["1 + ", "1 = 1 AND ", "1 = 1 OR ", "f(1, 2) || ", "NOT ", "'x' LIKE ", "1 UNION SELECT "] {
            let error = parse(&format!("SELECT {}1", chain.repeat(4_000)), &config()).expect_err(chain);
            assert!(matches!(error.kind(), Kind::Limited), "{chain}: {error:?}");
        }
        let relations = format!("SELECT 1 FROM {}", vec!["t"; RELATIONS_MAX + 1].join(", "));
        assert_eq!(parse(&relations, &config()).unwrap_err().kind(), Kind::Limited);
        let windows = format!("SELECT {}", vec!["sum(x) OVER ()"; WINDOWS_MAX + 1].join(", "));
        assert_eq!(parse(&windows, &config()).unwrap_err().kind(), Kind::Limited);
        let cases = vec!["CASE WHEN a THEN b::INT WHEN CAST(c AS INT) = 1 THEN NULL ELSE -d END"; 100].join(", ");
        parse(&format!("SELECT {cases}"), &config()).unwrap();
        let list = format!("SELECT x IN ({})", vec!["-1"; 9_000].join(", "));
        parse(&list, &config()).unwrap();
        let long = format!("SELECT '{}'", "x".repeat(config().sql_bytes_max));
        let error = parse(&long, &config()).unwrap_err();
        assert_eq!(error.kind(), Kind::Limited);
        assert!(error.message().contains("query.sql_bytes_max"), "{error:?}");
    }
}
