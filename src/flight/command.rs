//! Decodes commands: the protobuf messages in descriptors, tickets and actions become enums of what this server
//! supports.
//!
//! In: bytes from a client. Out: a [`QueryCommand`], a [`PutCommand`] or an [`ActionCommand`]. Malformed messages are
//! refused, and so are unsupported features, by name (transactions, savepoints, Substrait).

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any, Command,
    CommandStatementIngest,
};
use arrow_flight::{Action, ActionType, CancelFlightInfoRequest, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use prost::Message;

use super::catalog::CatalogCommand;
use super::options::{SetRequest, decode};
use crate::error::{Error, Result};

/// A command that returns rows.
#[derive(Debug)]
pub(super) enum QueryCommand {
    /// The text of a statement.
    Statement(String),
    /// The handle of a prepared statement.
    Prepared(Bytes),
    /// A metadata command, and its encoded bytes.
    Catalog(CatalogCommand, Bytes),
}

/// The purpose of an upload.
#[derive(Debug)]
pub(super) enum PutCommand {
    /// Parameters of a prepared query.
    Bind(Bytes),
    /// Events.
    Ingest(Box<CommandStatementIngest>),
    /// A statement that would change data.
    Update(String),
    /// The same, prepared.
    PreparedUpdate(Bytes),
}

/// The actions of `DoAction`.
#[derive(Debug)]
pub(super) enum ActionCommand {
    Prepare(String),
    /// Handles are stateless, so closing one does nothing.
    ClosePrepared,
    CancelFlight(Box<FlightInfo>),
    CancelQuery(Box<FlightInfo>),
    SetOptions(SetRequest),
    GetOptions,
    CloseSession,
}

/// The actions that [`act`] supports, for `ListActions`.
pub(super) const ACTIONS: [(&str, &str); 7] = [
    (PREPARE, "prepares a statement; returns its handle, schema and parameters"),
    (CLOSE_PREPARED, "does nothing: handles are stateless and expire"),
    (CANCEL_FLIGHT, "cancels the caller's running query by its FlightInfo"),
    (CANCEL_QUERY, "cancels a running query; the older form of CancelFlightInfo"),
    (SET_OPTIONS, "sets `catalog`, `schema` (checked only) and `types` (`compat` or `native`)"),
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
pub(super) fn query(descriptor: &FlightDescriptor) -> Result<QueryCommand> {
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
        other => Err(misplaced(&other, "a query")),
    }
}

/// Decodes the metadata command in a ticket.
pub(super) fn catalog(bytes: &[u8]) -> Result<CatalogCommand> {
    CatalogCommand::decode(&any(bytes)?).ok_or_else(|| Error::invalid("the ticket holds no metadata command"))?
}

/// Decodes the command of DoPut.
pub(super) fn put(descriptor: &FlightDescriptor) -> Result<PutCommand> {
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
        other => Err(misplaced(&other, "an upload")),
    }
}

/// Decodes an action.
pub(super) fn act(action: &Action) -> Result<ActionCommand> {
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
            Err(Error::unsupported("tickets cannot be renewed: call GetFlightInfo again, it only plans"))
        }
        other => Err(Error::unsupported(format!("unknown action `{other}`: ListActions lists the supported actions"))),
    }
}

/// The actions as `ListActions` returns them.
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
        return Err(Error::invalid("expected a Flight SQL command in an `Any`, found one without a type"));
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

fn misplaced(command: &Command, place: &str) -> Error {
    Error::unsupported(format!("`{}` is not {place} that this server supports", command.type_url()))
}

fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(no_transactions()),
        _ => Ok(()),
    }
}

fn no_transactions() -> Error {
    Error::unsupported(
        "transactions are not supported: a statement reads one snapshot, an upload is committed when its call returns",
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
        assert!(matches!(query(&described(&statement)).unwrap(), QueryCommand::Statement(sql) if sql == "SELECT 1"));
        statement.transaction_id = Some(Bytes::new());
        assert!(query(&described(&statement)).is_ok());
        statement.transaction_id = Some("t".into());
        assert_eq!(query(&described(&statement)).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn garbage_is_invalid_and_never_panics() {
        for bytes in [&b""[..], b"\xff\xff", b"\x0a\x05abcde", b"SELECT 1"] {
            let descriptor = FlightDescriptor::new_cmd(bytes.to_vec());
            assert!(query(&descriptor).is_err() && put(&descriptor).is_err(), "{bytes:?}");
            for (name, _) in ACTIONS {
                let _ = act(&Action { r#type: name.to_owned(), body: bytes.to_vec().into() });
            }
        }
        assert_eq!(query(&FlightDescriptor::new_path(vec!["t".into()])).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn transactions_are_unsupported() {
        let body = ActionBeginTransactionRequest {}.as_any().encode_to_vec().into();
        let error = act(&Action { r#type: "BeginTransaction".into(), body }).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
