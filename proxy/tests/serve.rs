//! The process as an operator meets it: start, stop, and the one line that each mistake gets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Long enough for a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

fn command(directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
    command.arg("serve").args(flags).current_dir(directory).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// In `directory`, with certificates and data of its own, on a free port.
    fn start(directory: &Path, flags: &[&str]) -> Self {
        let url = "https://127.0.0.1:0";
        let all =
            [&["--listen-client-urls", url, "--advertise-client-urls", "https://127.0.0.1:2379"], flags];
        let mut child = command(directory, &all.concat()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut address = None;
        let start = Instant::now();
        loop {
            let left = PATIENCE.checked_sub(start.elapsed()).expect("not ready in time");
            let line = lines.recv_timeout(left).expect("the server ended before it was ready");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            match line["msg"].as_str().unwrap() {
                "serving client traffic securely" => {
                    address = Some(line["address"].as_str().unwrap().parse().unwrap())
                }
                "ready to serve client requests" => break,
                _ => {}
            }
        }
        Self { child, lines, address: address.unwrap() }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Exit code and standard output.
    fn stop(mut self) -> (i32, String) {
        self.signal("TERM");
        let code = wait(&mut self.child);
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (code, out)
    }

    fn get(&self, pki: &Path, path: &str) -> String {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(pki.join("root.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(pki.join("root-key.pem")).unwrap(),
            )
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(self.address).unwrap());
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `stop`.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn wait(child: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("ended by a signal");
        }
        assert!(start.elapsed() < PATIENCE, "still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Of a start that must fail: exit code, and the messages of its errors.
fn refused(directory: &Path, flags: &[&str]) -> (i32, Vec<String>) {
    let output = command(directory, flags).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let errors = text.lines().filter_map(|line| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) if line["level"] == "error" => Some(line["error"].as_str().unwrap_or_default().to_owned()),
        Ok(_) => None,
        Err(_) => Some(line.to_owned()),
    });
    (output.status.code().unwrap(), errors.collect())
}

#[test]
fn a_first_start_is_safe_and_a_second_finds_everything_again() {
    let directory = tempfile::tempdir().unwrap();
    let pki = directory.path().join("keygate.data/pki");
    let server = Server::start(directory.path(), &[]);
    assert!(server.get(&pki, "/health").ends_with(r#"{"health":"true","reason":""}"#));
    assert!(server.get(&pki, "/readyz").ends_with("ok\n"));
    assert!(server.get(&pki, "/version").contains(r#""etcdserver":"3.7.1""#));
    let metrics = server.get(&pki, "/metrics");
    assert!(metrics.contains("\netcd_server_has_leader 1\n"), "{metrics}");
    let (code, out) = server.stop();
    assert_eq!(code, 0);
    assert!(out.starts_with("etcdctl --endpoints=https://127.0.0.1:2379 --cacert="), "{out}");
    let mut seen = 0;
    for entry in fs::read_dir(&pki).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 7);
    let logs = directory.path().join("keygate.data/member/log");
    for entry in fs::read_dir(logs).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "others can reach {:?}", entry.path());
    }
    let ca = fs::read(pki.join("ca.pem")).unwrap();

    let server = Server::start(directory.path(), &[]);
    assert!(server.get(&pki, "/health").ends_with(r#"{"health":"true","reason":""}"#));
    let (code, out) = server.stop();
    assert_eq!((code, out.as_str()), (0, ""), "a second start has nothing to tell");
    assert_eq!(fs::read(pki.join("ca.pem")).unwrap(), ca);
}

/// Of a server that has certificates of its operator's, a first start makes the password of `root` and
/// nothing else. Once `root` is there, a password that was taken away is not made again.
#[test]
fn who_brings_certificates_gets_the_password_alone_and_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(at("cert.pem"), cert.pem()).unwrap();
    fs::write(at("key.pem"), key.serialize_pem()).unwrap();
    fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let brought = ["--cert-file", "cert.pem", "--key-file", "key.pem"];
    let pki = at("keygate.data/pki");
    let files =
        || -> Vec<_> { fs::read_dir(&pki).unwrap().map(|entry| entry.unwrap().file_name()).collect() };

    let (code, out) = Server::start(directory.path(), &brought).stop();
    assert_eq!(code, 0);
    assert!(out.contains("--user \"root:$(cat ") && !out.contains("--cacert"), "{out}");
    assert_eq!(files(), ["root-password"]);

    fs::remove_file(pki.join("root-password")).unwrap();
    assert_eq!(Server::start(directory.path(), &brought).stop(), (0, String::new()));
    assert!(files().is_empty());
    // Certificates of our own from now on: no password appears that would not be `root`'s.
    assert_eq!(Server::start(directory.path(), &[]).stop(), (0, String::new()));
    assert_eq!(files().len(), 6);
    assert!(!pki.join("root-password").exists());
}

#[test]
fn a_port_in_use_is_one_line_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let url = format!("https://{address}");
    let flags = ["--listen-client-urls", &url, "--advertise-client-urls", &url];
    let (code, errors) = refused(directory.path(), &flags);
    assert_eq!(
        (code, errors),
        (1, vec![format!("cannot listen on `{address}`: another process does already")])
    );
    assert!(!directory.path().join("keygate.data").exists());
}

#[test]
fn a_data_directory_in_use_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let flags =
        ["--listen-client-urls", "https://127.0.0.1:0", "--advertise-client-urls", "https://127.0.0.1:1"];
    let (code, errors) = refused(directory.path(), &flags);
    assert_eq!(code, 1);
    assert!(errors.len() == 1 && errors[0].contains("in use by another process"), "{errors:?}");
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
    fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
    fs::set_permissions(directory.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, errors) = refused(directory.path(), &["--cert-file", "cert.pem", "--key-file", "key.pem"]);
    assert_eq!(code, 2);
    assert!(errors.iter().any(|line| line.contains("key.pem") && line.contains("0644")), "{errors:?}");
}

#[test]
fn sighup_reads_certificates_again_and_keeps_good_ones() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let pki = directory.path().join("keygate.data/pki");
    fs::write(pki.join("server.pem"), "rubbish").unwrap();
    server.signal("HUP");
    let complaint = loop {
        let line = server.lines.recv_timeout(PATIENCE).expect("nothing was said");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["level"] == "error" {
            break line;
        }
    };
    assert!(complaint["error"].as_str().unwrap().contains("server.pem"), "{complaint}");
    assert!(server.get(&pki, "/health").ends_with(r#"{"health":"true","reason":""}"#));
    assert_eq!(server.stop().0, 0);
}

#[test]
fn a_client_that_is_turned_away_is_told_of_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let line = server.lines.recv_timeout(PATIENCE).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["msg"], "rejected connection on client endpoint");
    assert_eq!(line["remote_addr"], plain.local_addr().unwrap().to_string());
    assert!(line["error"].as_str().unwrap().contains("does not speak TLS"), "{line}");
}
