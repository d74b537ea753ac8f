//! Tests of uploads with randomly damaged messages. Each upload must end with a gRPC status other than `INTERNAL`, and
//! the server must keep running.

use std::collections::BTreeMap;

use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions};
use tonic::Code;

use super::testing::*;
use crate::config::{FlightConfig, PolicyConfig, QueryConfig};
use crate::ingest::testing::{TABLE, columns, limits, memory, mutations, open};

#[tokio::test]
async fn damaged_arrow_messages_return_a_regular_status() {
    let tables = open(&memory()).await;
    let policy = BTreeMap::from([(TABLE.to_owned(), PolicyConfig::default())]);
    let (flight, query) = (FlightConfig::default(), QueryConfig::default());
    let server = FlightTestServer::with(flight, query, limits(), tables, &policy).await;
    let mut call = server.caller("acme").await;
    let command = CommandStatementIngest {
        table: TABLE.into(),
        table_definition_options: Some(TableDefinitionOptions { if_not_exist: 1, if_exists: 2 }),
        ..CommandStatementIngest::default()
    };
    let whole = encoded(&command, vec![columns(["a", "b", "c"])]).await;
    // The index of the damaged message, and whether the damaged part is its header. The damaged parts are the schema,
    // the header of the batch, and the body of the batch.
    let parts = [(0, true), (1, true), (1, false)];
    for (index, is_header) in parts {
        let part = if is_header { &whole[index].data_header } else { &whole[index].data_body };
        for (seed, damaged) in mutations(part, 250) {
            let mut messages = whole.clone();
            let part = if is_header { &mut messages[index].data_header } else { &mut messages[index].data_body };
            *part = damaged.into();
            let code = call.put_messages(messages).await.map_or_else(|status| status.code(), |_| Code::Ok);
            let is_refused = matches!(code, Code::InvalidArgument | Code::AlreadyExists | Code::ResourceExhausted);
            let is_regular = is_refused || code == Code::Ok;
            assert!(is_regular, "message {index}, header {is_header}, seed {seed}: {code:?}");
        }
    }
    call.put_messages(whole).await.unwrap();
    server.close().await.unwrap();
}
