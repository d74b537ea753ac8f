//! Runs a real Kafka broker for the tests. The broker and the controller run in one process, on free loopback ports.
//!
//! `tests/clients/setup.sh` installs the jars. With [`Broker::with_secure_listeners`], a broker has additional
//! listeners that require TLS, a client certificate or a login. The methods of [`Broker`] use the plaintext listener.
//!
//! **Invariant:** dropping a [`Broker`] stops its process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::client_suite::{python, script};
use crate::ports::free_ports;
use crate::server::until;

/// The time limit for one request to the broker.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);

/// The password of the user `reader` for each SASL mechanism, as set in
/// `tests/clients/kafka/secure_listeners.properties`.
pub(crate) const PASSWORDS: [(&str, &str); 3] =
    [("PLAIN", "plain secret"), ("SCRAM-SHA-256", "scram-256 secret"), ("SCRAM-SHA-512", "scram-512 secret")];

/// The addresses of the listeners that require TLS or authentication.
#[derive(Debug)]
pub(crate) struct SecureListeners {
    /// A listener with TLS.
    pub(crate) tls: String,
    /// A listener with mutual TLS, which requires a client certificate.
    pub(crate) mutual: String,
    /// A listener with TLS and a certificate for another host.
    pub(crate) elsewhere: String,
    /// A listener with TLS and a SASL login.
    pub(crate) login: String,
    certificates: TempDir,
}

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    /// The address of the plaintext listener.
    pub(crate) address: String,
    producer: BaseProducer,
    folder: TempDir,
    /// A command-line option for the broker's JVM.
    option: String,
}

impl Broker {
    /// Starts a broker and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "", "-ea")
    }

    /// Starts a broker with listeners that require TLS or authentication. The broker verifies tokens with `keys`, a
    /// JSON Web Key Set (JWKS).
    pub(crate) fn with_secure_listeners(keys: &str) -> (Self, SecureListeners) {
        let (folder, listeners) = (tempfile::tempdir().unwrap(), SecureListeners::new(keys));
        (Self::start_in(folder, &listeners.properties(), &listeners.option()), listeners)
    }

    fn start_in(folder: TempDir, more: &str, option: &str) -> Self {
        let [port, controller_port] = free_ports();
        let settings = settings(&folder);
        fs::write(&settings, properties(folder.path(), port, controller_port, more)).unwrap();
        let format = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ"];
        let users = PASSWORDS.iter().filter(|(mechanism, _)| mechanism.starts_with("SCRAM"));
        let users = users.map(|(mechanism, password)| format!("{mechanism}=[name=reader,password={password}]"));
        let users = users.flat_map(|user| ["--add-scram".to_owned(), user]);
        let formatted = java().args(format).args(users).arg("-c").arg(&settings).output().unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));

        let address = format!("127.0.0.1:{port}");
        let client = || ClientConfig::new().set("bootstrap.servers", &address).set("log_level", "0").clone();
        let producer: BaseProducer = client().set("enable.idempotence", "true").create().unwrap();
        let child = run(&folder, option);
        let broker = Self { child, address: address.clone(), producer, folder, option: option.to_owned() };
        broker.wait();
        broker
    }

    /// Kills the broker with SIGKILL, and restarts it with the same data.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.restart();
    }

    /// Stops the broker with SIGTERM. Unlike a killed broker, it remembers all deletions of records.
    pub(crate) fn stop(&mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap();
    }

    /// Restarts a killed or stopped broker with the same data.
    pub(crate) fn restart(&mut self) {
        self.child = run(&self.folder, &self.option);
        self.wait();
    }

    fn wait(&self) {
        // The broker is ready as soon as the metadata that it returns contains a broker.
        until("the broker is ready", || {
            let metadata = self.producer.client().fetch_metadata(None, Duration::from_secs(1));
            metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
    }

    /// Creates a topic.
    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]).await;
    }

    /// Creates a topic with settings.
    pub(crate) async fn create_topic_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        for made in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }

    /// Sends messages, and waits until all of them are delivered. The key of a message determines its partition.
    pub(crate) fn send(&self, topic: &str, messages: &[(String, String)]) {
        for (key, payload) in messages {
            let mut record = BaseRecord::to(topic).key(key).payload(payload);
            while let Err((error, refused)) = self.producer.send(record) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                self.producer.poll(Duration::from_millis(10));
                record = refused;
            }
        }
        self.producer.flush(REQUEST_TIME_MAX).unwrap();
    }

    /// Sends one message to a partition, and waits until it is delivered.
    pub(crate) fn send_to(&self, topic: &str, partition: i32, payload: &str) {
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(payload);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(REQUEST_TIME_MAX).unwrap();
    }

    /// Sends a tombstone, which deletes older messages with this key from a compacted topic.
    pub(crate) fn send_tombstone(&self, topic: &str, key: &str) {
        let record = BaseRecord::<_, ()>::to(topic).key(key);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(REQUEST_TIME_MAX).unwrap();
    }

    /// Sends messages with keys to partition 0 in a transaction, and leaves the transaction open.
    pub(crate) fn keyed_transaction(&self, topic: &str, messages: &[(String, String)]) -> Transaction {
        let producer = self.transactional_producer();
        producer.begin_transaction().unwrap();
        for (key, payload) in messages {
            let record = BaseRecord::to(topic).partition(0).key(key).payload(payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(REQUEST_TIME_MAX).unwrap();
        Transaction { producer, client: self.client(), topic: topic.to_owned(), partitions: vec![0] }
    }

    /// Sends messages to partitions in a transaction, and leaves the transaction open. When the transaction ends, its
    /// marker occupies one offset in each partition.
    pub(crate) fn transaction(&self, topic: &str, messages: &[(i32, String)]) -> Transaction {
        let producer = self.transactional_producer();
        producer.begin_transaction().unwrap();
        for (partition, payload) in messages {
            let record = BaseRecord::<(), _>::to(topic).partition(*partition).payload(payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(REQUEST_TIME_MAX).unwrap();
        let partitions = messages.iter().map(|(partition, _)| *partition).collect();
        Transaction { producer, client: self.client(), topic: topic.to_owned(), partitions }
    }

    /// Returns a producer that is ready to begin its first transaction. It fences the previous such producer.
    pub(crate) fn transactional_producer(&self) -> BaseProducer {
        let producer: BaseProducer = self.client().set("transactional.id", "tests").create().unwrap();
        producer.init_transactions(REQUEST_TIME_MAX).unwrap();
        producer
    }

    /// Deletes all messages in a topic, as retention does. New messages get the next higher offsets.
    pub(crate) async fn delete_all(&self, topic: &str, partitions: i32) {
        self.delete_before(topic, self.ends(topic, partitions)).await;
    }

    /// Deletes the messages before these offsets, as retention does.
    pub(crate) async fn delete_before(&self, topic: &str, offsets: impl IntoIterator<Item = (i32, i64)>) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        for (partition, end) in offsets {
            list.add_partition_offset(topic, partition, Offset::Offset(end)).unwrap();
        }
        let deleted = admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Returns the offsets that a group has committed to Kafka. The map is empty while the group's coordinator is not
    /// ready.
    pub(crate) fn committed(&self, group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        // A new coordinator has to load the group first, and refuses requests until then.
        let Ok(committed) = client.committed_offsets(list, REQUEST_TIME_MAX) else { return BTreeMap::new() };
        let elements = committed.elements().into_iter();
        elements
            .filter_map(|element| Some((element.partition(), element.offset().to_raw().filter(|next| *next >= 0)?)))
            .collect()
    }

    /// Returns the last stable offset of each partition.
    pub(crate) fn ends(&self, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let client: BaseConsumer = self.client().create().unwrap();
        let end = |partition| (partition, client.fetch_watermarks(topic, partition, REQUEST_TIME_MAX).unwrap().1);
        (0..partitions).map(end).collect()
    }

    /// Returns the offsets of all messages in a partition that a consumer receives, and their payloads.
    pub(crate) fn messages(&self, topic: &str, partition: i32) -> Vec<(i64, Option<String>)> {
        let client = self.client().set("group.id", "reader").set("enable.partition.eof", "true").clone();
        let client: BaseConsumer = client.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        client.assign(&list).unwrap();
        let mut messages = Vec::new();
        loop {
            match client.poll(REQUEST_TIME_MAX).expect("the consumer reaches the end") {
                Ok(message) => {
                    let payload = message.payload().map(|payload| String::from_utf8(payload.to_vec()).unwrap());
                    messages.push((message.offset(), payload));
                }
                Err(KafkaError::PartitionEOF(_)) => return messages,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::new().set("bootstrap.servers", &self.address).clone()
    }
}

/// An open transaction.
pub(crate) struct Transaction {
    producer: BaseProducer,
    client: ClientConfig,
    topic: String,
    partitions: Vec<i32>,
}

impl Transaction {
    pub(crate) fn commit(self) {
        self.producer.commit_transaction(REQUEST_TIME_MAX).unwrap();
        self.wait();
    }

    pub(crate) fn abort(self) {
        self.producer.abort_transaction(REQUEST_TIME_MAX).unwrap();
        self.wait();
    }

    /// Waits until the broker has written the control records of the transaction. This is necessary because the broker
    /// responds before it writes them.
    fn wait(&self) {
        let ends = |isolation: &str| -> Vec<i64> {
            let client: BaseConsumer = self.client.clone().set("isolation.level", isolation).create().unwrap();
            let end = |partition: &i32| client.fetch_watermarks(&self.topic, *partition, REQUEST_TIME_MAX).unwrap().1;
            self.partitions.iter().map(end).collect()
        };
        until("the transaction has ended", || ends("read_committed") == ends("read_uncommitted"));
    }
}

impl SecureListeners {
    fn new(keys: &str) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let made = python().arg(script("make_certs.py")).arg(certificates.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let [tls, mutual, elsewhere, login] = free_ports().map(|port| format!("localhost:{port}"));
        let listeners = Self { tls, mutual, elsewhere, login, certificates };
        for name in ["server", "elsewhere"] {
            let both =
                ["key", "pem"].map(|kind| fs::read_to_string(listeners.file(&format!("{name}.{kind}"))).unwrap());
            fs::write(listeners.file(&format!("{name}.both.pem")), both.concat()).unwrap();
        }
        fs::write(listeners.file("keys.json"), keys).unwrap();
        listeners
    }

    /// Returns the path of a file that `make_certs.py` created.
    pub(crate) fn file(&self, name: &str) -> String {
        self.certificates.path().join(name).display().to_string()
    }

    /// Returns the Java option that allows the URL of the JWKS. Kafka refuses to read keys from any other URL.
    fn option(&self) -> String {
        format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{}", self.file("keys.json"))
    }

    fn properties(&self) -> String {
        let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
        include_str!("../clients/kafka/secure_listeners.properties")
            .replace("{tls}", &port(&self.tls))
            .replace("{mutual}", &port(&self.mutual))
            .replace("{elsewhere}", &port(&self.elsewhere))
            .replace("{login}", &port(&self.login))
            .replace("{certificates}", &self.certificates.path().display().to_string())
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

fn run(folder: &TempDir, option: &str) -> Child {
    java().arg(option).arg("kafka.Kafka").arg(settings(folder)).stderr(Stdio::null()).spawn().unwrap()
}

fn java() -> Command {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/kafka");
    assert!(jars.join(".made-from").exists(), "{} is missing: run tests/clients/setup.sh first", jars.display());
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars.join("*"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn properties(folder: &Path, port: u16, controller_port: u16, more: &str) -> String {
    (include_str!("../clients/kafka/server.properties").to_owned() + more)
        .replace("{port}", &port.to_string())
        .replace("{controller_port}", &controller_port.to_string())
        .replace("{data}", &folder.join("data").display().to_string())
}
