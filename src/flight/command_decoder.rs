//! Decodes commands. The protobuf messages in descriptors, tickets and actions become variants of the enums
//! [`QueryCommand`], [`PutCommand`] and [`ActionCommand`].
//!
//! Malformed messages are refused. Commands for transactions, savepoints and Substrait are not supported, and the error
//! names the feature.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any, Command,
    CommandStatementIngest,
};
use arrow_flight::{Action, ActionType, CancelFlightInfoRequest, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use prost::Message;

use super::catalog::CatalogCommand;
use super::session_options::{SetSessionOptionsRequest, decode};
use crate::error::{Error, Result};

/// A command that returns rows.
#[derive(Debug)]
pub(super) enum QueryCommand {
    /// Runs a statement, which is given as SQL text.
    Statement(String),
    /// Runs the prepared statement that belongs to this handle.
    Prepared(Bytes),
    /// Runs a metadata command. The bytes are the encoded command.
    Catalog(CatalogCommand, Bytes),
}

/// The command of an upload, which determines what the server does with the batches.
#[derive(Debug)]
pub(super) enum PutCommand {
    /// Binds parameters to the prepared statement that belongs to this handle.
    Bind(Bytes),
    /// Appends events to a table.
    Ingest(Box<CommandStatementIngest>),
    /// Runs a statement that changes data. This command is always refused.
    Update(String),
    /// Runs a prepared statement that changes data. This command is always refused.
    PreparedUpdate(Bytes),
}

/// The actions of `DoAction`.
#[derive(Debug)]
pub(super) enum ActionCommand {
    Prepare(String),
    /// Closes a prepared statement. This has no effect, because the server does not store handles.
    ClosePrepared,
    CancelFlight(Box<FlightInfo>),
    CancelQuery(Box<FlightInfo>),
    SetOptions(SetSessionOptionsRequest),
    GetOptions,
    CloseSession,
}

/// The names of the actions that [`decode_action`] supports, with the descriptions that `ListActions` returns.
pub(super) const ACTIONS: [(&str, &str); 7] = [
    (PREPARE, "prepares a statement; returns its handle, schema and parameters"),
    (CLOSE_PREPARED, "does nothing: the server does not store handles, and they expire"),
    (CANCEL_FLIGHT, "cancels the caller's running query for a FlightInfo"),
    (CANCEL_QUERY, "cancels a running query; the older form of CancelFlightInfo"),
    (SET_OPTIONS, "sets the session option `types` (`compat` or `native`); checks `catalog` and `schema`"),
    (GET_OPTIONS, "returns the session options"),
    (CLOSE_SESSION, "resets the session options"),
];

const PREPARE: &str = "CreatePreparedStatement";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_FLIGHT: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const SET_OPTIONS: &str = "SetSessionOptions";
const GET_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// Decodes the command of GetFlightInfo, PollFlightInfo and GetSchema.
pub(super) fn decode_query(descriptor: &FlightDescriptor) -> Result<QueryCommand> {
    let bytes = descriptor_bytes(descriptor)?;
    let any = any(&bytes)?;
    if let Some(command) = CatalogCommand::decode(&any) {
        return Ok(QueryCommand::Catalog(command?, bytes));
    }
    match command(any)? {
        Command::CommandStatementQuery(query) => {
            no_transaction(query.transaction_id.as_ref())?;
            Ok(QueryCommand::Statement(query.query))
        }
        Command::CommandPreparedStatementQuery(query) => Ok(QueryCommand::Prepared(query.prepared_statement_handle)),
        Command::CommandStatementSubstraitPlan(_) => Err(no_substrait()),
        other => Err(unsupported_as(&other, "a query")),
    }
}

/// Decodes the metadata command that a ticket contains.
pub(super) fn decode_metadata_command(bytes: &[u8]) -> Result<CatalogCommand> {
    CatalogCommand::decode(&any(bytes)?)
        .ok_or_else(|| Error::invalid("the ticket does not contain a metadata command"))?
}

/// Decodes the command of DoPut.
pub(super) fn decode_put(descriptor: &FlightDescriptor) -> Result<PutCommand> {
    match command(any(&descriptor_bytes(descriptor)?)?)? {
        Command::CommandPreparedStatementQuery(query) => Ok(PutCommand::Bind(query.prepared_statement_handle)),
        Command::CommandStatementIngest(ingest) => {
            no_transaction(ingest.transaction_id.as_ref())?;
            Ok(PutCommand::Ingest(Box::new(ingest)))
        }
        Command::CommandStatementUpdate(update) => {
            no_transaction(update.transaction_id.as_ref())?;
            Ok(PutCommand::Update(update.query))
        }
        Command::CommandPreparedStatementUpdate(update) => {
            Ok(PutCommand::PreparedUpdate(update.prepared_statement_handle))
        }
        Command::CommandStatementSubstraitPlan(_) => Err(no_substrait()),
        other => Err(unsupported_as(&other, "an upload")),
    }
}

/// Decodes the action of a DoAction call.
pub(super) fn decode_action(action: &Action) -> Result<ActionCommand> {
    let body = &action.body;
    match action.r#type.as_str() {
        PREPARE => {
            let request: ActionCreatePreparedStatementRequest = unpack(action)?;
            no_transaction(request.transaction_id.as_ref())?;
            Ok(ActionCommand::Prepare(request.query))
        }
        CLOSE_PREPARED => unpack::<ActionClosePreparedStatementRequest>(action).map(|_| ActionCommand::ClosePrepared),
        CANCEL_FLIGHT => {
            let request: CancelFlightInfoRequest = decode(body, CANCEL_FLIGHT)?;
            let info = request.info.ok_or_else(|| Error::invalid("`CancelFlightInfo` needs a FlightInfo"))?;
            Ok(ActionCommand::CancelFlight(Box::new(info)))
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(action)?;
            Ok(ActionCommand::CancelQuery(Box::new(decode(&request.info, CANCEL_QUERY)?)))
        }
        SET_OPTIONS => Ok(ActionCommand::SetOptions(decode(body, SET_OPTIONS)?)),
        GET_OPTIONS => Ok(ActionCommand::GetOptions),
        CLOSE_SESSION => Ok(ActionCommand::CloseSession),
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => Err(no_transactions()),
        "CreatePreparedSubstraitPlan" => Err(no_substrait()),
        "RenewFlightEndpoint" => {
            Err(Error::unsupported("tickets cannot be renewed: call GetFlightInfo again to get a new ticket"))
        }
        other => Err(Error::unsupported(format!("unknown action `{other}`: ListActions lists the supported actions"))),
    }
}

/// Returns the supported actions as messages for `ListActions`.
pub(super) fn action_types() -> impl Iterator<Item = ActionType> {
    ACTIONS
        .into_iter()
        .map(|(name, description)| ActionType { r#type: name.to_owned(), description: description.to_owned() })
}

fn descriptor_bytes(descriptor: &FlightDescriptor) -> Result<Bytes> {
    if descriptor.r#type() == DescriptorType::Path {
        return Err(Error::invalid("path descriptors are not supported: send a Flight SQL command"));
    }
    Ok(descriptor.cmd.clone())
}

fn any(bytes: &[u8]) -> Result<Any> {
    let any = Any::decode(bytes)
        .map_err(|error| Error::invalid("expected a Flight SQL command in an `Any`").with_source(error))?;
    if any.type_url.is_empty() {
        return Err(Error::invalid("expected a Flight SQL command in an `Any`, but its type URL is empty"));
    }
    Ok(any)
}

fn command(any: Any) -> Result<Command> {
    Command::try_from(any).map_err(|error| Error::invalid("malformed Flight SQL command").with_source(error))
}

fn unpack<M: arrow_flight::sql::ProstMessageExt>(action: &Action) -> Result<M> {
    let expected = || Error::invalid(format!("the body of `{}` is not a `{}`", action.r#type, M::type_url()));
    any(&action.body)?.unpack().map_err(|error| expected().with_source(error))?.ok_or_else(expected)
}

fn unsupported_as(command: &Command, usage: &str) -> Error {
    Error::unsupported(format!("`{}` is not supported as {usage}", command.type_url()))
}

fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(no_transactions()),
        _ => Ok(()),
    }
}

fn no_transactions() -> Error {
    Error::unsupported(
        "transactions are not supported: each statement reads one snapshot, and an upload is committed when its call \
         returns",
    )
}

fn no_substrait() -> Error {
    Error::unsupported("Substrait plans are not supported: send SQL")
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{ActionBeginTransactionRequest, CommandStatementQuery, ProstMessageExt};

    use super::*;
    use crate::error::Kind;

    fn described(message: &impl ProstMessageExt) -> FlightDescriptor {
        FlightDescriptor::new_cmd(message.as_any().encode_to_vec())
    }

    #[test]
    fn statements_are_decoded_and_transactions_refused() {
        let mut statement = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None };
        assert!(
            matches!(decode_query(&described(&statement)).unwrap(), QueryCommand::Statement(sql) if sql == "SELECT 1")
        );
        statement.transaction_id = Some(Bytes::new());
        assert!(decode_query(&described(&statement)).is_ok());
        statement.transaction_id = Some("t".into());
        assert_eq!(decode_query(&described(&statement)).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn garbage_is_invalid_and_never_panics() {
        for bytes in [&b""[..], b"\xff\xff", b"\x0a\x05abcde", b"SELECT 1"] {
            let descriptor = FlightDescriptor::new_cmd(bytes.to_vec());
            assert!(decode_query(&descriptor).is_err() && decode_put(&descriptor).is_err(), "{bytes:?}");
            for (name, _) in ACTIONS {
                let _ = decode_action(&Action { r#type: name.to_owned(), body: bytes.to_vec().into() });
            }
        }
        assert_eq!(decode_query(&FlightDescriptor::new_path(vec!["t".into()])).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn transactions_are_unsupported() {
        let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec().into();
        let error = decode_action(&Action { r#type: "BeginTransaction".into(), body }).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
