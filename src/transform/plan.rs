//! Turns a statement into a plan that can run over every batch.
//!
//! ```text
//!   SQL ─► parse (one SELECT?) ─► plan over empty tables ─► carry the message index ─► columns of the contract?
//!       ─► optimize ─► guard against base64 ─► physical plan
//! ```
//!
//! Planning needs the statement, the contract of the table that stores the rows, and the schemas of the lookup tables.
//! The result is a [`TransformPlan`], or an error that suggests a fix. Planning reads no data, because the tables are
//! still empty.
//!
//! **Invariant:** a statement can read `messages` and the lookup tables, but no other table, file or option.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

use super::error::of_engine;
use super::lookup_contents::LoadedLookup;
use super::messages_table::{MESSAGES, schema, schema_with_index};
use super::placeholder_table::{PlaceholderScan, PlaceholderTable};
use super::provenance::carry;
use super::{base64_guard, deadline};
use crate::config::Envelope;
use crate::contract::{ColumnKind, Contract, DecodeOptions, EVENT_DATE, Owner, RECEIVED_TIME, decode_arrow};
use crate::error::{Error, Result, did_you_mean};
use crate::sql::decorrelate::decorrelate;
use crate::sql::syntax;
use crate::sql::{dialect, engine_bugs};

/// The number of rows per record batch inside a plan.
const BATCH_ROWS: usize = 8_192;
/// The approximate number of messages in a batch, which the engine uses to plan joins.
const MESSAGES_EXPECTED: usize = 10_000;

/// Returns the names of the columns that store texts as decimals.
fn decimals(contract: &Contract) -> BTreeSet<String> {
    let is_decimal = |kind| matches!(kind, ColumnKind::Decimal { .. } | ColumnKind::List(ColumnKind::Decimal { .. }));
    contract.columns.iter().filter(|column| is_decimal(column.kind)).map(|column| column.name.clone()).collect()
}

/// The contract of the table and the configuration of the source, which the result of a statement must match.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlanTarget<'a> {
    pub(super) contract: &'a Contract,
    /// True if the source, not the statement, determines the tenant of a message.
    pub(super) is_owned: bool,
    pub(super) envelope: Envelope,
    /// True if a JSON string that may be base64 must not be read as a number.
    pub(super) guards_base64: bool,
}

/// A planned statement. Each run executes a copy of the plan.
pub(super) struct TransformPlan {
    pub(super) physical: Arc<dyn ExecutionPlan>,
    /// For each column of `messages`, whether the statement reads it.
    pub(super) is_read: Vec<bool>,
    pub(super) config: SessionConfig,
    pub(super) runtime: Arc<RuntimeEnv>,
}

impl fmt::Debug for TransformPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransformPlan").field("is_read", &self.is_read).finish_non_exhaustive()
    }
}

/// Parses one SELECT statement, and returns it with the names of the tables that it reads.
pub(super) fn parse(sql: &str) -> Result<(Statement, Vec<String>)> {
    // In the PostgreSQL dialect, `->>` binds more tightly than `=`, so `value->>'a' = 'b'` is a comparison. The generic
    // dialect would parse `'a' = 'b'` as the key.
    let dialect = PostgreSqlDialect {};
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).build();
    let mut statements = parser.and_then(|mut parser| parser.parse_statements()).map_err(of_engine)?;
    if statements.len() > 1 {
        return Err(Error::invalid("the transform has more than one statement; write one SELECT statement"));
    }
    let statement =
        statements.pop_front().ok_or_else(|| Error::invalid("the transform is empty; write one SELECT statement"))?;
    let is_query = matches!(&statement, Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)));
    if !is_query {
        return Err(Error::invalid("the transform is not a SELECT statement; write one SELECT statement"));
    }
    let state = state(&[], Envelope::None)?;
    let names = state.resolve_table_references(&statement).map_err(of_engine)?;
    Ok((statement, names.iter().map(|name| name.table().to_owned()).collect()))
}

impl TransformPlan {
    /// Plans a statement over lookups with these schemas. This function blocks the calling thread, which must be a
    /// thread of the blocking pool.
    pub(super) fn new(sql: &str, target: PlanTarget<'_>, lookups: &[(String, Arc<LoadedLookup>)]) -> Result<Self> {
        let state = state(lookups, target.envelope)?;
        let (mut statement, _) = parse(sql)?;
        syntax::check_and_rewrite(&mut statement, &state, None)?;
        syntax::rewrite_columns(&mut statement, &state)?;
        let planned = futures::executor::block_on(state.statement_to_plan(statement)).map_err(of_engine)?;
        let reads_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads_only.verify_plan(&planned).map_err(of_engine)?;
        let messages = PlaceholderTable::new(MESSAGES, schema_with_index(target.envelope), MESSAGES_EXPECTED);
        let plan = carry(&planned, &Arc::new(messages))?;
        let plan = decorrelate(plan).map_err(of_engine)?.data;
        engine_bugs::check(&plan)?;
        check_names(&plan, target)?;
        let mut plan = state.optimize(&plan).map_err(of_engine)?;
        if target.guards_base64 {
            plan = base64_guard::guard(plan, decimals(target.contract)).map_err(of_engine)?;
        }
        let physical = state.query_planner().create_physical_plan(&plan, &state);
        let physical = futures::executor::block_on(physical).map_err(of_engine)?;
        check_types(&physical.schema(), target)?;
        let is_read = is_read(&physical, schema_with_index(target.envelope).fields().len());
        let physical = deadline::add_deadline_checks(physical).map_err(of_engine)?;
        let (config, runtime) = (state.config().clone(), Arc::clone(state.runtime_env()));
        Ok(Self { physical, is_read, config, runtime })
    }
}

/// Returns a session state with the functions, rules and tables of a transform.
fn state(lookups: &[(String, Arc<LoadedLookup>)], envelope: Envelope) -> Result<SessionState> {
    let session = SessionConfig::new()
        .with_information_schema(false)
        // A batch is small, so running the plan on several threads would only add overhead.
        .with_target_partitions(1)
        .with_batch_size(BATCH_ROWS)
        .with_enforce_batch_size_in_joins(true);
    let mut options = session.options().as_ref().clone();
    options.optimizer.enable_dynamic_filter_pushdown = false;
    let runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(of_engine)?;
    let builder = dialect::session_state(options).with_runtime_env(runtime);
    let state = builder.build();
    let tables = state.schema_for_ref(MESSAGES).map_err(of_engine)?;
    let messages = PlaceholderTable::new(MESSAGES, schema(envelope), MESSAGES_EXPECTED);
    tables.register_table(MESSAGES.to_owned(), Arc::new(messages)).map_err(of_engine)?;
    for (name, loaded) in lookups {
        let slot = PlaceholderTable::new(name, Arc::clone(&loaded.schema), loaded.rows);
        tables.register_table(name.clone(), Arc::new(slot)).map_err(of_engine)?;
    }
    Ok(state)
}

/// Checks that all columns except the last are columns of the table, and that they include the table's key columns.
fn check_names(plan: &LogicalPlan, target: PlanTarget<'_>) -> Result<()> {
    let contract = target.contract;
    let fields = plan.schema().fields();
    let names: Vec<&str> = fields.iter().rev().skip(1).rev().map(|field| field.name().as_str()).collect();
    let known = || contract.columns.iter().map(|column| column.name.as_str()).filter(|name| *name != RECEIVED_TIME);
    let table = &contract.name;
    for (index, name) in names.iter().enumerate() {
        if [RECEIVED_TIME, EVENT_DATE].contains(name) {
            return Err(Error::invalid(format!("column `{name}` is set by the server; remove it from the SELECT")));
        }
        if contract.column(name).is_none() {
            let guess = did_you_mean(name, known());
            let hint =
                if guess.is_empty() { format!("; it has {}", known().collect::<Vec<_>>().join(", ")) } else { guess };
            return Err(Error::invalid(format!("table `{table}` has no column `{name}`{hint} (set a name with AS)")));
        }
        if names[..index].contains(name) {
            return Err(Error::invalid(format!("column `{name}` appears more than once in the SELECT")));
        }
    }
    let keys = [("id", contract.id), ("time", contract.time), ("tenant", contract.tenant)];
    for (role, column) in keys {
        let name = contract.columns[column].name.as_str();
        let is_given = names.contains(&name) || role == "tenant" && target.is_owned;
        if !is_given {
            let alternative = if role == "tenant" { ", or set the source's `tenant`" } else { "" };
            return Err(Error::invalid(format!(
                "the SELECT has no `{name}`, the {role} column of table `{table}`; add the column{alternative}"
            )));
        }
    }
    Ok(())
}

/// Checks that the table accepts values of these types, by decoding a batch without rows.
fn check_types(schema: &SchemaRef, target: PlanTarget<'_>) -> Result<()> {
    let columns = schema.fields().len().saturating_sub(1);
    if let Some(field) =
        schema.fields()[..columns].iter().find(|field| matches!(field.data_type(), DataType::Union(..)))
    {
        return Err(Error::invalid(format!(
            "column `{}` has values of several types; cast it to one type",
            field.name()
        )));
    }
    let shown = Arc::new(Schema::new(schema.fields()[..columns].to_vec()));
    let stamp =
        DecodeOptions { received: 0, owner: Owner::PerEvent, time_max: 0, event_bytes_max: 0, dimensions_max: 0 };
    decode_arrow(target.contract, &RecordBatch::new_empty(shown), 0, &stamp).map(|_| ())
}

/// Returns for each column of `messages` whether the plan reads it.
fn is_read(plan: &Arc<dyn ExecutionPlan>, columns: usize) -> Vec<bool> {
    let mut is_read = vec![false; columns];
    // The traversal cannot fail, because its callback never returns an error.
    let _walked = plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<PlaceholderScan>() {
            scan.columns_of(MESSAGES).iter().for_each(|column| is_read[*column] = true);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    is_read
}
