//! A real Apache Kafka for the tests: broker and controller in one process, on free ports of loopback.
//!
//! In: the jars that `tests/clients/setup.sh` has fetched. Out: a topic, and messages in it.
//! **Invariant:** the process ends with its [`Broker`].

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tempfile::TempDir;

use crate::server::until;

/// Time for one question to the broker.
const ASK_TIME_MAX: Duration = Duration::from_secs(30);

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    /// Where it answers.
    pub(crate) address: String,
    producer: BaseProducer,
    folder: TempDir,
}

impl Broker {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port, controller_port] = free_ports();
        let settings = settings(&folder);
        fs::write(&settings, properties(folder.path(), port, controller_port)).unwrap();
        let format = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"];
        let formatted = java().args(format).arg(&settings).output().unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));

        let address = format!("127.0.0.1:{port}");
        let client = || ClientConfig::new().set("bootstrap.servers", &address).set("log_level", "0").clone();
        let producer: BaseProducer = client().set("enable.idempotence", "true").create().unwrap();
        let broker = Self { child: run(&folder), address: address.clone(), producer, folder };
        broker.wait();
        broker
    }

    /// Kills it without a warning, and starts it again on what it has left.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = run(&self.folder);
        self.wait();
    }

    fn wait(&self) {
        until("the broker answers", || self.producer.client().fetch_metadata(None, Duration::from_secs(1)).is_ok());
    }

    /// Makes a topic.
    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }

    /// Sends messages, each with a key that decides about its partition, and waits until all are there.
    pub(crate) fn send(&self, topic: &str, messages: &[(String, String)]) {
        for (key, payload) in messages {
            let mut record = BaseRecord::to(topic).key(key).payload(payload);
            while let Err((error, refused)) = self.producer.send(record) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                self.producer.poll(Duration::from_millis(10));
                record = refused;
            }
        }
        self.producer.flush(ASK_TIME_MAX).unwrap();
    }

    /// Sends one message in a transaction, which is committed: its end takes an offset as well.
    pub(crate) fn send_in_transaction(&self, topic: &str, key: &str, payload: &str) {
        let producer: BaseProducer = self.client().set("transactional.id", "tests").create().unwrap();
        producer.init_transactions(ASK_TIME_MAX).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(topic).key(key).payload(payload)).map_err(|(error, _)| error).unwrap();
        producer.flush(ASK_TIME_MAX).unwrap();
        producer.commit_transaction(ASK_TIME_MAX).unwrap();
    }

    /// The offset after the last message of each partition.
    pub(crate) fn ends(&self, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().create().unwrap();
        let end = |partition| (partition, client.fetch_watermarks(topic, partition, ASK_TIME_MAX).unwrap().1);
        (0..partitions).map(end).collect()
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::new().set("bootstrap.servers", &self.address).clone()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(folder: &TempDir) -> PathBuf {
    folder.path().join("server.properties")
}

fn run(folder: &TempDir) -> Child {
    java().arg("kafka.Kafka").arg(settings(folder)).stderr(Stdio::null()).spawn().unwrap()
}

fn java() -> Command {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/kafka");
    assert!(jars.join(".made-from").exists(), "{} is missing: run tests/clients/setup.sh first", jars.display());
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Two ports that nobody listens on now.
fn free_ports() -> [u16; 2] {
    let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn properties(folder: &Path, port: u16, controller_port: u16) -> String {
    include_str!("../clients/kafka/server.properties")
        .replace("{port}", &port.to_string())
        .replace("{controller_port}", &controller_port.to_string())
        .replace("{data}", &folder.join("data").display().to_string())
}
