//! The command `glasshouse query` runs a single SQL statement or an interactive session over Flight SQL.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::{Args as ClapArgs, ValueEnum};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use rustyline::error::ReadlineError;

use crate::error::{Error, Result};
use crate::flight::client::{FlightClient, ResultRows};

/// The maximum number of rows that the format `table` shows. The other formats show all rows.
const TABLE_ROWS_MAX: usize = 10_000;

/// Run a SQL query over Flight SQL.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse query --token \"$TOKEN\" 'select count(*) from call_events'
  glasshouse query --format csv --output calls.csv 'select * from call_events limit 1000'
  glasshouse query                       start an interactive session
  echo 'select 1' | glasshouse query     read a statement from standard input

Commands in an interactive session:
  \\d         list the tables
  \\d NAME    list the columns of a table
  \\q         quit")]
pub(crate) struct Args {
    /// The server's Flight SQL endpoint
    #[arg(long, env = "GLASSHOUSE_FLIGHT_URL", default_value = "grpc://127.0.0.1:8815")]
    url: String,
    /// A token with the scope `read`
    #[arg(long, env = "GLASSHOUSE_TOKEN", hide_env_values = true)]
    token: String,
    /// A file with CA certificates (PEM) to trust for grpc+tls://, in addition to the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The output format
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    format: OutputFormat,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The SQL statement; omit it to read standard input or to start an interactive session
    sql: Option<String>,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// A text table
    Table,
    /// Comma-separated values with a header; lists, maps and structs are JSON texts
    Csv,
    /// One JSON object per line
    Json,
    /// A Parquet file
    Parquet,
}

/// Runs one statement, or starts an interactive session.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    super::block_on(async {
        let mut client = FlightClient::connect(&args.url, &args.token, args.ca.as_deref()).await?;
        match &args.sql {
            Some(sql) => run_statement(&mut client, sql, args).await?,
            None if io::stdin().is_terminal() => run_session(&mut client, args).await?,
            None => {
                let mut sql = String::new();
                io::stdin()
                    .read_to_string(&mut sql)
                    .map_err(|e| Error::invalid(format!("cannot read standard input: {e}")))?;
                run_statement(&mut client, &sql, args).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Reads statements from the terminal, each terminated by a semicolon, and runs them. An error does not end the
/// session.
async fn run_session(client: &mut FlightClient, args: &Args) -> Result<()> {
    let terminal = |e: ReadlineError| Error::internal(format!("cannot read from the terminal: {e}"));
    let mut editor = rustyline::DefaultEditor::new().map_err(terminal)?;
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { "glasshouse> " } else { "        ... " };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        if let Some(command) = line.trim().strip_prefix('\\').filter(|_| statement.is_empty()) {
            let sql = match command.split_whitespace().collect::<Vec<_>>()[..] {
                ["q"] => return Ok(()),
                ["d"] => "show tables".to_owned(),
                ["d", table] => format!("describe {table}"),
                _ => {
                    super::write_error(&Error::invalid("unknown command: use \\d, \\d NAME or \\q"));
                    continue;
                }
            };
            report(run_statement(client, &sql, args).await);
            continue;
        }
        statement.push_str(&line);
        statement.push('\n');
        if line.trim_end().ends_with(';') {
            editor.add_history_entry(statement.trim()).map_err(terminal)?;
            report(run_statement(client, &statement, args).await);
            statement.clear();
        }
    }
}

fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        super::write_error(&error);
    }
}

async fn run_statement(client: &mut FlightClient, sql: &str, args: &Args) -> Result<()> {
    let ResultRows { schema, mut batches } = client.query(sql.trim().trim_end_matches(';')).await?;
    let output: Box<dyn Write + Send> = match &args.output {
        None => Box::new(io::stdout()),
        Some(path) => {
            Box::new(File::create(path).map_err(|e| Error::invalid(format!("cannot write `{}`: {e}", path.display())))?)
        }
    };
    if args.format == OutputFormat::Table {
        return print_table(output, &schema, batches.try_collect().await?);
    }
    let mut writer = Writer::new(output, args.format, schema)?;
    while let Some(batch) = batches.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()
}

fn print_table(mut output: impl Write, schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<()> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut remaining = TABLE_ROWS_MAX;
    let shown: Vec<_> = batches
        .iter()
        .map(|batch| {
            let taken = batch.slice(0, batch.num_rows().min(remaining));
            remaining -= taken.num_rows();
            taken
        })
        .collect();
    let text = pretty_format_batches_with_schema(schema.clone(), &shown).map_err(not_written)?;
    let limit =
        if rows > TABLE_ROWS_MAX { format!(", {TABLE_ROWS_MAX} shown; --format csv shows all") } else { String::new() };
    writeln!(output, "{text}\n({rows} rows{limit})").map_err(not_written)
}

/// Writes each batch in the output format as soon as the batch arrives.
enum Writer {
    Csv(Box<arrow::csv::Writer<Box<dyn Write + Send>>>),
    Json(arrow::json::LineDelimitedWriter<Box<dyn Write + Send>>),
    Parquet(Box<ArrowWriter<Box<dyn Write + Send>>>),
}

impl Writer {
    fn new(output: Box<dyn Write + Send>, format: OutputFormat, schema: SchemaRef) -> Result<Self> {
        Ok(match format {
            OutputFormat::Csv => Self::Csv(Box::new(arrow::csv::Writer::new(output))),
            OutputFormat::Json | OutputFormat::Table => Self::Json(arrow::json::LineDelimitedWriter::new(output)),
            OutputFormat::Parquet => {
                Self::Parquet(Box::new(ArrowWriter::try_new(output, schema, None).map_err(not_written)?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Csv(writer) => writer.write(&with_json_texts(batch).map_err(not_written)?).map_err(not_written),
            Self::Json(writer) => writer.write(batch).map_err(not_written),
            Self::Parquet(writer) => writer.write(batch).map_err(not_written),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Csv(writer) => writer.into_inner().flush().map_err(not_written),
            Self::Json(mut writer) => writer.finish().map_err(not_written),
            Self::Parquet(writer) => writer.close().map(|_| ()).map_err(not_written),
        }
    }
}

/// Replaces the lists, maps and structs of a batch, which have no form in CSV, with their JSON texts.
fn with_json_texts(batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let options = EncoderOptions::default();
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
        if !column.data_type().is_nested() {
            return Ok((Arc::clone(field), Arc::clone(column)));
        }
        let mut encoder = make_encoder(field, column, &options)?;
        let texts = (0..column.len()).map(|row| {
            let mut json = Vec::new();
            (!encoder.is_null(row)).then(|| encoder.encode(row, &mut json));
            (!json.is_empty()).then(|| String::from_utf8_lossy(&json).into_owned())
        });
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        Ok((Arc::new(Field::new(field.name(), DataType::Utf8, true)), texts))
    });
    let (fields, columns): (Vec<_>, Vec<_>) =
        columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?.into_iter().unzip();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}

fn not_written(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("cannot write the result: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListBuilder, MapBuilder, StringBuilder};

    use super::*;

    #[test]
    fn csv_contains_lists_and_maps_as_json() {
        let mut names = ListBuilder::new(StringBuilder::new());
        names.append_value([Some("a,\"b\""), None]);
        names.append_null();
        let mut tags = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        tags.append(true).unwrap();
        tags.keys().append_value("k");
        tags.values().append_value("v");
        tags.append(true).unwrap();
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from(vec![1, 2]))),
            ("names", Arc::new(names.finish())),
            ("tags", Arc::new(tags.finish())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(Box::new(file.reopen().unwrap()), OutputFormat::Csv, batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "id,names,tags\n1,\"[\"\"a,\\\"\"b\\\"\"\"\",null]\",{}\n2,,\"{\"\"k\"\":\"\"v\"\"}\"\n");
    }
}
