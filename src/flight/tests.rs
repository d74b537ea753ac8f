//! Tests of the Flight endpoint with real RPCs over loopback. The tests cover the behavior that known clients require.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
    CommandPreparedStatementUpdate, CommandStatementIngest, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightInfo,
    HandshakeRequest, IpcMessage, Ticket,
};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::{Code, Request};

use super::client::FlightClient;
use super::session_options::{
    CloseSessionResult, GetSessionOptionsResult, SessionOptionErrorValue, SessionOptionValue, SetSessionOptionsRequest,
    SetSessionOptionsResult,
};
use super::testing::*;
use super::*;

#[tokio::test]
async fn handshake_accepts_a_bearer_token_or_a_password() {
    let server = FlightTestServer::default().await;
    let token = token("acme");
    let basic = |padded: bool| {
        use base64::Engine as _;
        let text = format!("anyone:{token}");
        let engine = if padded { base64::prelude::BASE64_STANDARD } else { base64::prelude::BASE64_STANDARD_NO_PAD };
        format!("Basic {}", engine.encode(text))
    };
    let cases = [
        (format!("Bearer {token}"), 0, None),
        (format!("bearer {token}"), 1, None),
        (basic(true), 1, None),
        (basic(false), 0, None),
        ("Bearer x.y.z".to_owned(), 1, Some(Code::Unauthenticated)),
        ("Basic YTpi".to_owned(), 0, Some(Code::Unauthenticated)),
    ];
    for (header, messages, refused) in cases {
        let mut request = Request::new(stream::iter(vec![HandshakeRequest::default(); messages]));
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        let response = server.grpc().await.handshake(request).await;
        match refused {
            Some(code) => assert_eq!(response.unwrap_err().code(), code, "{header}"),
            None => {
                let response = response.unwrap();
                let bearer = response.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
                assert_eq!(bearer, format!("Bearer {token}"));
                assert!(response.into_inner().message().await.unwrap().is_none());
            }
        }
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn every_call_needs_exactly_one_token() {
    let server = FlightTestServer::default().await;
    let good = format!("Bearer {}", token("acme"));
    for headers in [vec![], vec!["Bearer a.b.c"], vec![&good, &good], vec!["Basic YTpi"]] {
        fn signed<T>(headers: &[&str], message: T) -> Request<T> {
            let mut request = Request::new(message);
            for header in headers {
                request.metadata_mut().append("authorization", header.parse().unwrap());
            }
            request
        }
        let mut client = server.grpc().await;
        let descriptor = described(&statement("SELECT 1"));
        let codes = [
            client.handshake(signed(&headers, stream::iter([]))).await.map(drop),
            client.list_flights(signed(&headers, Criteria::default())).await.map(drop),
            client.get_flight_info(signed(&headers, descriptor.clone())).await.map(drop),
            client.poll_flight_info(signed(&headers, descriptor.clone())).await.map(drop),
            client.get_schema(signed(&headers, descriptor)).await.map(drop),
            client.do_get(signed(&headers, Ticket::default())).await.map(drop),
            client.do_put(signed(&headers, stream::iter([]))).await.map(drop),
            client.do_exchange(signed(&headers, stream::iter([]))).await.map(drop),
            client.do_action(signed(&headers, Action::default())).await.map(drop),
            client.list_actions(signed(&headers, Empty {})).await.map(drop),
        ];
        for (index, response) in codes.into_iter().enumerate() {
            assert_eq!(response.unwrap_err().code(), Code::Unauthenticated, "call {index} with {headers:?}");
        }
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn all_rpcs_report_the_same_schema() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let statements = [
        "SELECT 1",
        "SELECT NULL AS nothing, 'text', 1.5, true, now() AS at",
        "SELECT count(*), sum(value), avg(value), min(value) FROM generate_series(1, 10)",
        "SELECT arrow_cast('a', 'Utf8View') v, arrow_cast('a', 'LargeUtf8') l, arrow_cast('a', 'Dictionary(Int32, Utf8)') d",
        "SELECT arrow_cast(1.5, 'Decimal256(50, 2)') AS wide, INTERVAL '1 day' AS day, arrow_cast(1.5, 'Float16') AS half",
        "SELECT make_array(1, 2) l, named_struct('a', arrow_cast('x', 'Utf8View'), 'b', 2) s, MAP {'k': 1} m",
        "SELECT arrow_cast(make_array('a'), 'LargeList(Utf8View)') AS big, value FROM generate_series(1, 3)",
        "SELECT value FROM generate_series(1, 3) WHERE value > 100",
        "SHOW TABLES",
        "SELECT table_name FROM information_schema.tables",
        "EXPLAIN SELECT 1",
    ];
    for types in ["compat", "native"] {
        call.headers = vec![("x-glasshouse-types", types)];
        for sql in statements {
            let (promised, sent, rows) = call.fetch(&statement(sql)).await.unwrap();
            assert_eq!(promised, sent, "{types}: {sql}");
            assert_eq!(promised, call.schema(&statement(sql)).await.unwrap(), "{types}: {sql}");
            let handle = call.prepare(sql).await.unwrap();
            let dataset = Schema::try_from(IpcMessage(handle.dataset_schema)).unwrap();
            assert_eq!(promised, dataset, "{types}: {sql}");
            let (again, sent, same) = call.fetch(&prepared(&handle.prepared_statement_handle)).await.unwrap();
            assert_eq!((&promised, &promised), (&again, &sent), "{types}: {sql}");
            let count = |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            assert_eq!(count(&rows), count(&same), "{types}: {sql}");
        }
        let (promised, sent, rows) = call.fetch(&CommandGetCatalogs {}).await.unwrap();
        assert_eq!((&promised, rows.len()), (&sent, 1));
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn flight_info_reports_complete_until() {
    let tables = crate::ingest::testing::open(&crate::ingest::testing::memory()).await;
    let policy = std::collections::BTreeMap::from([("calls".to_owned(), crate::config::PolicyConfig::default())]);
    let server = FlightTestServer::over(crate::config::FlightConfig::default(), tables, &policy).await;
    let mut call = server.caller("acme").await;
    for (sql, is_known) in [
        ("SELECT count(*) FROM calls", true),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM calls a, calls b)", true),
        ("SELECT 1", false),
        ("SELECT * FROM calls_quarantine", false),
        ("SELECT count(*) FROM calls, generate_series(1, 2)", false),
    ] {
        let before = chrono::DateTime::from_timestamp_micros(crate::clock::Clock::System.now()).unwrap();
        let info = call.info(&statement(sql)).await.unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap_or_default();
        let until =
            metadata["complete_until"].as_str().map(|until| until.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        assert_eq!(until.is_some_and(|until| until >= before), is_known, "{sql}: {metadata}");
        assert_eq!(info.app_metadata.is_empty(), !is_known, "{sql}");
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn ordered_results_are_announced_and_keep_their_order() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let sql = statement("SELECT value FROM generate_series(1, 100000) ORDER BY value DESC");
    assert!(call.info(&sql).await.unwrap().ordered);
    assert!(!call.info(&statement("SELECT 1")).await.unwrap().ordered);
    let (_, _, rows) = call.fetch(&sql).await.unwrap();
    let rows = concat_batches(rows[0].schema_ref(), &rows).unwrap();
    let values = rows.column(0).as_primitive::<Int64Type>();
    assert!(values.values().is_sorted_by(|a, b| a > b) && values.len() == 100_000);
    server.close().await.unwrap();
}

#[tokio::test]
async fn ticket_works_on_any_connection_but_only_for_its_caller() {
    let server = FlightTestServer::default().await;
    let info = server.caller("acme").await.info(&statement("SELECT 42")).await.unwrap();
    assert!(info.endpoint[0].expiration_time.is_some());
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    assert_eq!(server.caller("acme").await.get(ticket.clone()).await.unwrap().len(), 2);
    // A ticket is valid on another server that has the same secret. It is refused if another tenant uses it or if one
    // of its bytes has been changed.
    let other = FlightTestServer::default().await;
    assert_eq!(other.caller("acme").await.get(ticket.clone()).await.unwrap().len(), 2);
    let foreign = server.caller("evil").await.get(ticket.clone()).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    for index in [0, 1, 20, ticket.ticket.len() - 1] {
        let mut bytes = ticket.ticket.to_vec();
        bytes[index] ^= 1;
        let error = server.caller("acme").await.get(Ticket { ticket: bytes.into() }).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "byte {index}");
    }
    let handle = server.caller("acme").await.prepare("SELECT 1").await.unwrap().prepared_statement_handle;
    let foreign = server.caller("evil").await.info(&prepared(&handle)).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    let error = server.caller("acme").await.get(Ticket { ticket: handle }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = server.caller("acme").await.info(&prepared(&ticket.ticket)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    server.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn large_results_fit_clients_with_default_limits() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let cases = [
        ("SELECT value, repeat('x', CAST(value % 1000 AS INT)) AS skewed FROM generate_series(1, 50000)", 50_000),
        ("SELECT repeat('x', 2900000) AS wide FROM generate_series(1, 4)", 4),
        (
            "SELECT make_array(value, value) AS list, repeat('y', 3000) AS t FROM generate_series(1, 9000) LIMIT 8000",
            8_000,
        ),
    ];
    for (sql, expected) in cases {
        let (_, _, rows) = call.fetch(&statement(sql)).await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{sql}");
    }
    let error = call.fetch(&statement("SELECT repeat('x', 5000000) FROM generate_series(1, 3)")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("one row takes 5000"), "{error}");
    // The connection can still be used after the error.
    assert_eq!(call.value(&statement("SELECT 1")).await.unwrap().len(), 1);
    server.close().await.unwrap();
}

#[tokio::test]
async fn errors_map_to_grpc_codes() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let cases = [
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT no_such_column FROM generate_series(1, 2)", Code::InvalidArgument),
        ("SELECT * FROM no_such_table", Code::NotFound),
        ("DROP TABLE calls", Code::PermissionDenied),
        ("INSERT INTO calls VALUES (1)", Code::PermissionDenied),
        ("SET x = 1", Code::PermissionDenied),
        ("SELECT $1", Code::InvalidArgument),
    ];
    for (sql, code) in cases {
        assert_eq!(call.info(&statement(sql)).await.unwrap_err().code(), code, "{sql}");
        if code == Code::PermissionDenied {
            assert_eq!(call.prepare(sql).await.unwrap_err().code(), code, "{sql}");
            assert_eq!(call.update(sql).await.code(), code, "{sql}");
        }
    }
    assert_eq!(call.update("SELECT 1").await.code(), Code::InvalidArgument);
    let handle = call.prepare("SELECT 1").await.unwrap().prepared_statement_handle;
    let update = CommandPreparedStatementUpdate { prepared_statement_handle: handle };
    assert_eq!(
        call.put(&update, vec![RecordBatch::new_empty(Arc::new(Schema::empty()))]).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    server.close().await.unwrap();
}

#[tokio::test]
async fn unsupported_calls_are_unimplemented() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let begin = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
    assert_eq!(call.act("BeginTransaction", begin).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(call.act("Dance", vec![]).await.unwrap_err().code(), Code::Unimplemented);
    let request = call.request(Criteria::default());
    assert_eq!(call.client.list_flights(request).await.unwrap_err().code(), Code::Unimplemented);
    let mut request = Request::new(stream::iter([]));
    call.sign(request.metadata_mut());
    assert_eq!(call.client.do_exchange(request).await.unwrap_err().code(), Code::Unimplemented);
    let request = call.request(Empty {});
    let actions: Vec<_> = call.client.list_actions(request).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(actions.iter().any(|action| action.r#type == "CreatePreparedStatement"));
    let request = call.request(described(&statement("SELECT 1")));
    let poll = call.client.poll_flight_info(request).await.unwrap().into_inner();
    assert!(poll.info.is_some() && poll.flight_descriptor.is_none() && poll.progress == Some(1.0));
    server.close().await.unwrap();
}

#[tokio::test]
async fn parameters_of_any_type_are_bound() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let sql = "SELECT sum(value) FROM generate_series(1, 10) WHERE value > $1";
    let created = call.prepare(sql).await.unwrap();
    let parameters = Schema::try_from(IpcMessage(created.parameter_schema)).unwrap();
    assert_eq!(*parameters.field(0).data_type(), DataType::Int64);
    let handle = created.prepared_statement_handle;
    let bound: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(Int8Array::from(vec![7])),
        Arc::new(Float64Array::from(vec![7.0])),
        Arc::new(StringArray::from(vec!["7"])),
    ];
    for value in bound {
        let updated = call.bind(&handle, vec![row(vec![value.clone()])]).await.unwrap();
        // The new handle can be used several times and on other connections, because the server stores no handles.
        for mut call in [server.caller("acme").await, server.caller("acme").await] {
            let sum = call.value(&prepared(&updated)).await.unwrap();
            assert_eq!(sum.as_primitive::<Int64Type>().value(0), 27, "{}", value.data_type());
        }
    }
    // The old handle still has no parameters, so running it returns an error.
    let error = call.info(&prepared(&handle)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("parameter 1 is not bound"), "{error}");
    assert!(call.schema(&prepared(&handle)).await.is_ok());
    // The statement runs once for each row of parameters, even if the rows are in several batches.
    let rows = |values: &[i64]| row(vec![Arc::new(Int64Array::from(values.to_vec()))]);
    for batches in [vec![rows(&[7, 8, 9])], vec![rows(&[7]), rows(&[8, 9])]] {
        let updated = call.bind(&handle, batches).await.unwrap();
        let (_, _, results) = call.fetch(&prepared(&updated)).await.unwrap();
        let sums: Vec<_> =
            results.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values()).collect();
        assert_eq!(sums, [&27, &19, &10]);
    }
    let wide = row(vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![1]))]);
    assert_eq!(call.bind(&handle, vec![wide]).await.unwrap_err().code(), Code::InvalidArgument);
    server.close().await.unwrap();
}

#[tokio::test]
async fn untyped_parameters_keep_the_type_of_their_value() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let request = ActionCreatePreparedStatementRequest { query: "SELECT ? AS x".into(), transaction_id: None };
    let results = call.act("CreatePreparedStatement", request.as_any().encode_to_vec()).await.unwrap();
    let any = Any::decode(&*results[0].body).unwrap();
    assert!(any.value.ends_with(&[0x20, 0x00]), "field 4, is_update = false");
    let created: ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
    let parameters = Schema::try_from(IpcMessage(created.parameter_schema)).unwrap();
    assert_eq!(*parameters.field(0).data_type(), DataType::Null);
    let values: [ArrayRef; 2] = [Arc::new(StringArray::from(vec!["hello"])), Arc::new(Float64Array::from(vec![2.5]))];
    for value in values {
        let handle = call.bind(&created.prepared_statement_handle, vec![row(vec![Arc::clone(&value)])]).await.unwrap();
        assert_eq!(call.schema(&prepared(&handle)).await.unwrap().field(0).data_type(), value.data_type());
        assert_eq!(&call.value(&prepared(&handle)).await.unwrap(), &value);
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn only_its_caller_can_cancel_a_query() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let info = call.info(&statement(ENDLESS)).await.unwrap();
    let cancel = |info: &FlightInfo| CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec();
    let result =
        |results: Vec<arrow_flight::Result>| CancelFlightInfoResult::decode(&*results[0].body).unwrap().status();
    // The query has not started yet, so it cannot be cancelled.
    let before = call.act("CancelFlightInfo", cancel(&info)).await.unwrap();
    assert_eq!(result(before), CancelStatus::NotCancellable);
    for older in [false, true] {
        let request = call.request(info.endpoint[0].ticket.clone().unwrap());
        let mut rows = call.client.do_get(request).await.unwrap().into_inner();
        assert!(rows.message().await.unwrap().is_some());
        let foreign = server.caller("evil").await.act("CancelFlightInfo", cancel(&info)).await.unwrap_err();
        assert_eq!(foreign.code(), Code::PermissionDenied);
        if older {
            let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
            let results = call.act("CancelQuery", request.as_any().encode_to_vec()).await.unwrap();
            let response: ActionCancelQueryResult = Any::decode(&*results[0].body).unwrap().unpack().unwrap().unwrap();
            assert_eq!(response.result, 1);
        } else {
            let response = call.act("CancelFlightInfo", cancel(&info)).await.unwrap();
            assert_eq!(result(response), CancelStatus::Cancelled);
        }
        let end = rows.try_for_each(|_| std::future::ready(Ok(()))).await.unwrap_err();
        assert_eq!(end.code(), Code::Cancelled);
        until_idle(&server.engine).await;
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn query_stops_when_its_client_disconnects() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let info = call.info(&statement(ENDLESS)).await.unwrap();
    let request = call.request(info.endpoint[0].ticket.clone().unwrap());
    let mut rows = call.client.do_get(request).await.unwrap().into_inner();
    assert!(rows.message().await.unwrap().is_some());
    assert_eq!(server.engine.running(), 1);
    drop(rows);
    until_idle(&server.engine).await;
    server.close().await.unwrap();
}

#[tokio::test]
async fn session_options_are_checked_and_only_types_has_an_effect() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let options = [("catalog", "glasshouse"), ("schema", "other"), ("types", "native"), ("tenant", "evil")];
    let session_options =
        options.map(|(name, value)| (name.to_owned(), SessionOptionValue::from_text(value))).into_iter().collect();
    let results =
        call.act("SetSessionOptions", SetSessionOptionsRequest { session_options }.encode_to_vec()).await.unwrap();
    let result = SetSessionOptionsResult::decode(&*results[0].body).unwrap();
    let errors = ["catalog", "schema", "types", "tenant"].map(|name| result.error(name));
    assert_eq!(
        errors,
        [None, Some(SessionOptionErrorValue::InvalidValue), None, Some(SessionOptionErrorValue::InvalidName)]
    );

    let get = async |call: &mut TestCall| {
        let results = call.act("GetSessionOptions", vec![]).await.unwrap();
        let options = GetSessionOptionsResult::decode(&*results[0].body).unwrap().session_options;
        ["catalog", "schema", "types"].map(|name| options[name].text().unwrap().to_owned())
    };
    assert_eq!(get(&mut call).await, ["glasshouse", "public", "native"]);
    let view = statement("SELECT arrow_cast('a', 'Utf8View') AS v");
    assert_eq!(*call.schema(&view).await.unwrap().field(0).data_type(), DataType::Utf8View);
    assert_eq!(get(&mut server.caller("evil").await).await, ["glasshouse", "public", "compat"]);
    let results = call.act("CloseSession", vec![]).await.unwrap();
    assert_eq!(CloseSessionResult::decode(&*results[0].body).unwrap().encode_to_vec(), [8, 1]);
    assert_eq!(*call.schema(&view).await.unwrap().field(0).data_type(), DataType::Utf8);
    server.close().await.unwrap();
}

#[tokio::test]
async fn ingest_needs_a_declared_table() {
    let server = FlightTestServer::default().await;
    let mut call = server.caller("acme").await;
    let events = || vec![row(vec![Arc::new(Int64Array::from(vec![1]))])];
    let mut command = CommandStatementIngest { table: "nowhere".into(), ..CommandStatementIngest::default() };
    assert_eq!(call.put(&command, events()).await.unwrap_err().code(), Code::InvalidArgument);
    command.table_definition_options =
        Some(arrow_flight::sql::TableDefinitionOptions { if_not_exist: 2, if_exists: 2 });
    assert_eq!(call.put(&command, events()).await.unwrap_err().code(), Code::NotFound);
    command.transaction_id = Some("t".into());
    assert_eq!(call.put(&command, events()).await.unwrap_err().code(), Code::Unimplemented);
    server.close().await.unwrap();
}

#[tokio::test]
async fn server_stop_waits_for_running_streams_and_then_ends_them() {
    let sql = "SELECT value, repeat('x', 500) AS text FROM generate_series(1, 40000)";
    for finishes in [true, false] {
        let server = FlightTestServer::default().await;
        let mut call = server.caller("acme").await;
        let sql = if finishes { sql } else { ENDLESS };
        let info = call.info(&statement(sql)).await.unwrap();
        let request = call.request(info.endpoint[0].ticket.clone().unwrap());
        let mut rows = call.client.do_get(request).await.unwrap().into_inner();
        assert!(rows.message().await.unwrap().is_some());
        server.stop.cancel();
        if !finishes {
            server.cut.cancel();
        }
        let end = rows.by_ref().try_for_each(|_| std::future::ready(Ok(()))).await;
        match finishes {
            true => end.unwrap(),
            false => {
                let end = end.unwrap_err();
                assert_eq!(end.code(), Code::Unavailable, "{end:?}");
            }
        }
        drop(call);
        server.close().await.unwrap();
    }
}

#[tokio::test]
async fn plain_text_is_only_allowed_on_loopback() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = tls::settings(&listener, &FlightConfig::default()).unwrap_err();
    assert!(error.message().contains("plain text"), "{error}");
    let allowed = FlightConfig { plaintext_allowed: true, ..FlightConfig::default() };
    assert!(tls::settings(&listener, &allowed).unwrap().is_none());
}

#[tokio::test]
async fn command_line_client_reads_results_and_errors() {
    let server = FlightTestServer::default().await;
    let mut client = FlightClient::connect(&server.url, &token("acme"), None).await.unwrap();
    let rows = client.query("SELECT value FROM generate_series(1, 20000)").await.unwrap();
    assert_eq!(rows.schema.field(0).name(), "value");
    let batches: Vec<_> = rows.batches.try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
    let error = client.query("SELECT * FROM nowhere").await.err().unwrap();
    assert_eq!(error.kind(), crate::error::Kind::NotFound);
    for url in ["localhost:1", "ftp://localhost", "grpc://"] {
        assert!(FlightClient::connect(url, "", None).await.is_err(), "{url}");
    }
    server.close().await.unwrap();
}

#[tokio::test]
async fn health_needs_no_token_and_ends_with_the_server() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let server = FlightTestServer::default().await;
    let mut client = HealthClient::new(server.channel().await);
    let request = || HealthCheckRequest { service: "arrow.flight.protocol.FlightService".to_owned() };
    assert_eq!(client.check(request()).await.unwrap().into_inner().status, 1);
    let mut watch = client.watch(request()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    server.stop.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    drop((watch, client));
    server.close().await.unwrap();
}
