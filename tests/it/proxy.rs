//! Tests for the environment variables that set a proxy. Requests to other hosts use the proxy, and requests to
//! loopback never do. The tests run the binary, because a process reads these variables from its environment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

/// Starts a thread that answers one request with an empty list of sources, and returns the address on which it listens.
/// Joining the thread returns the first line of the request.
fn listen() -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answered = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let lines = BufReader::new(connection.try_clone().unwrap()).lines();
        let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"sources\":[]}")
            .unwrap();
        head[0].clone()
    });
    (address, answered)
}

#[test]
fn a_proxy_is_for_other_machines_only() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for is_here in [false, true] {
        let (address, answering) = listen();
        let (url, proxy, expected) = match is_here {
            false => ("http://elsewhere.test".to_owned(), address, "GET http://elsewhere.test/v1/sources HTTP/1.1"),
            true => (format!("http://{address}"), closed, "GET /v1/sources HTTP/1.1"),
        };
        let mut listing = Command::new(env!("CARGO_BIN_EXE_glasshouse"));
        for name in ["http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"] {
            listing.env_remove(name);
        }
        listing.env("HTTP_PROXY", format!("http://{proxy}"));
        let asked = listing.args(["sources", "list", "--json", "--url", &url, "--token", "t"]).output().unwrap();
        let (output, complaint) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
        assert!(asked.status.success(), "{url}: {complaint}");
        assert_eq!((output.trim(), answering.join().unwrap().as_str()), ("{\"sources\":[]}", expected));
    }
}
