//! Certificates of a test cluster, made by the program, and a relay through which a client that
//! speaks plain text reaches a port that speaks TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use coracle_tls::{Caller, CallerFiles, PeerFiles, PeerPort, PemFile, Received, Session};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

use super::program;

/// The authorities and certificates of a cluster, in a temporary folder.
#[derive(Debug)]
pub struct Certificates {
    folder: tempfile::TempDir,
    cluster: String,
}

impl Certificates {
    /// Makes the authorities of a cluster, and certificates of the nodes 1 to 3 and of the client
    /// `teller`.
    ///
    /// # Panics
    ///
    /// When the program does not make them.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let certificates = Self { folder, cluster: cluster.to_owned() };
        certificates.make(&["init", "--cluster", cluster]);
        for id in ["1", "2", "3"] {
            certificates.make(&["node", "--id", id, "--host", "kv.example"]);
        }
        certificates.make(&["client", "teller"]);
        certificates
    }

    /// Runs `coracle cert` in the folder.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn make(&self, words: &[&str]) {
        let made =
            Command::new(program()).arg("cert").args(words).arg("--dir").arg(self.folder.path()).output();
        let made = made.expect("the program runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// The path of a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The flags of a port for clients that need certificates.
    #[must_use]
    pub fn client_port(&self) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "--tls-cert {} --tls-key {} --tls-ca {}",
            path("node1.pem"),
            path("node1.key"),
            path("clients-ca.pem")
        )
    }

    /// The flags of a node whose both ports are protected, with the files of the node `files`.
    #[must_use]
    pub fn node(&self, files: u64) -> String {
        let path = |name: String| self.path(&name).display().to_string();
        format!(
            "{} --peer-cert {} --peer-key {} --peer-ca {}",
            self.client_port(),
            path(format!("node{files}-peer.pem")),
            path(format!("node{files}-peer.key")),
            path("peers-ca.pem".to_owned())
        )
    }

    /// Runs a client command of the program as the client `teller`.
    ///
    /// # Panics
    ///
    /// When the program does not run.
    #[must_use]
    pub fn run(&self, address: SocketAddr, words: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(words).args(["--connect", &address.to_string()]);
        for (flag, name) in
            [("--tls-ca", "clients-ca.pem"), ("--tls-cert", "teller.pem"), ("--tls-key", "teller.key")]
        {
            command.arg(flag).arg(self.path(name));
        }
        command.output().expect("the program runs")
    }

    fn pem(&self, name: &str) -> PemFile {
        let path = self.path(name);
        let bytes = std::fs::read(&path).expect("the file is there");
        PemFile::new(path, bytes)
    }

    /// A node with the files of the node `files`, which trusts the authority of `trusted`.
    ///
    /// # Panics
    ///
    /// When the files do not fit together.
    #[must_use]
    pub fn peer_port(&self, files: u64) -> PeerPort {
        let files_of = |ending: &str| self.pem(&format!("node{files}-peer.{ending}"));
        let authorities = self.pem("peers-ca.pem");
        let loaded = PeerFiles { certificate: files_of("pem"), key: files_of("key"), authorities };
        PeerPort::load(&loaded, files).expect("the files fit together").0
    }

    /// The client `teller`.
    ///
    /// # Panics
    ///
    /// When the files do not fit together.
    #[must_use]
    pub fn caller(&self) -> Caller {
        caller_in(self.folder.path(), "teller")
    }

    /// A client that trusts these authorities, and has the certificate with this name of others.
    ///
    /// # Panics
    ///
    /// When the files do not fit together.
    #[must_use]
    pub fn caller_as(&self, identity: Option<(&Self, &str)>) -> Caller {
        let of = |(others, name): (&Self, &str)| {
            (others.pem(&format!("{name}.pem")), others.pem(&format!("{name}.key")))
        };
        let files = CallerFiles { authorities: Some(self.pem("clients-ca.pem")), identity: identity.map(of) };
        Caller::load(&files).expect("the files fit together")
    }

    /// Makes `node2-peer` and `teller` again, for another cluster, signed by the authorities of
    /// `other`. The program does not do that: an authority of `coracle cert` has one cluster.
    ///
    /// # Panics
    ///
    /// When they cannot be made.
    pub fn make_for_cluster(&self, cluster: &str, other: &Self) {
        let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        for (authority, name, rest, uses) in [
            ("peers-ca", "node2-peer", "node/2", vec![server, client.clone()]),
            ("clients-ca", "teller", "client/teller", vec![client]),
        ] {
            let read = |ending: &str| std::fs::read_to_string(other.path(&format!("{authority}.{ending}")));
            let signing = KeyPair::from_pem(&read("key").expect("the file is there")).expect("it is a key");
            let common_name = format!("{} {authority}", other.cluster);
            let mut issuer = CertificateParams::default();
            issuer.distinguished_name.push(DnType::CommonName, common_name);
            let mut params = CertificateParams::default();
            let uri = format!("coracle://{cluster}/{rest}");
            params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("it is ASCII"))];
            params.extended_key_usages = uses;
            let key = KeyPair::generate().expect("a key can be made");
            let signed = params.signed_by(&key, &Issuer::new(issuer, signing)).expect("it can be signed");
            std::fs::write(self.path(&format!("{name}.pem")), signed.pem()).expect("there is room");
            std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("there is room");
            let name = format!("{authority}.pem");
            self.replace(&name, &[&other.path(&name)]);
        }
    }

    /// Replaces a file by one of another cluster, or of several.
    ///
    /// # Panics
    ///
    /// When a file cannot be read or written.
    pub fn replace(&self, name: &str, by: &[&Path]) {
        let texts = by.iter().map(|path| std::fs::read(path).expect("the file is there"));
        let (temporary, all) = (self.path("new.tmp"), texts.collect::<Vec<_>>().concat());
        std::fs::write(&temporary, all).expect("there is room");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&temporary, mode).expect("the file is ours");
        std::fs::rename(&temporary, self.path(name)).expect("the file is ours");
    }

    /// Starts a relay to a port that speaks TLS. Returns the address at which it accepts plain
    /// text.
    ///
    /// # Panics
    ///
    /// When the operating system refuses.
    #[must_use]
    pub fn relay(&self, to: SocketAddr) -> SocketAddr {
        start_relay(self.caller(), to)
    }
}

/// The client with this certificate, in a folder that `coracle cert` has filled.
pub(super) fn caller_in(folder: &Path, client: &str) -> Caller {
    let pem = |name: String| {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).expect("the file is there");
        PemFile::new(path, bytes)
    };
    let identity = Some((pem(format!("{client}.pem")), pem(format!("{client}.key"))));
    let files = CallerFiles { authorities: Some(pem("clients-ca.pem".to_owned())), identity };
    Caller::load(&files).expect("the files fit together")
}

/// Starts a relay: see [`Certificates::relay`].
pub(super) fn start_relay(caller: Caller, to: SocketAddr) -> SocketAddr {
    start_relay_with(caller, to, None)
}

/// Starts a relay that sends a line first on each connection, and keeps the reply to itself.
pub(super) fn start_relay_with(caller: Caller, to: SocketAddr, first: Option<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for plain in listener.incoming().flatten() {
            let (mut session, Ok(secured)) =
                (caller.call("127.0.0.1").expect("a name"), TcpStream::connect(to))
            else {
                continue;
            };
            let (first, _) = (first.clone(), secured.set_nodelay(true));
            // A server that is busy or stopped must not hold up the next connection.
            thread::spawn(move || {
                if shake_hands(&secured, &mut session).is_some() {
                    let early = first.map(|line| say_first(&secured, &mut session, &line));
                    relay(plain, secured, session, &early.unwrap_or_default());
                }
            });
        }
    });
    address
}

/// Sends a line and waits for the line of its reply. Returns what has arrived instead, if that is
/// the last line of a server that sends the client away.
fn say_first(mut stream: &TcpStream, session: &mut Session, line: &str) -> Vec<u8> {
    let (mut sealed, mut heard, mut bytes) = (Vec::new(), Vec::new(), [0; 4096]);
    _ = session.seal(line.as_bytes(), &mut sealed);
    _ = stream.write_all(&sealed);
    while !heard.ends_with(b"\n") {
        match stream.read(&mut bytes) {
            Ok(len @ 1..) => session.receive(&bytes[..len], |plaintext| heard.extend_from_slice(plaintext)),
            _ => break,
        };
    }
    if heard.starts_with(b"{\"name\":") { Vec::new() } else { heard }
}

/// Performs a handshake; `None`: it failed, for the reason that the session states.
pub fn shake_hands(mut stream: &TcpStream, session: &mut Session) -> Option<()> {
    let (mut output, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        session.drain(&mut output);
        _ = stream.write_all(&output);
        output.clear();
        if session.fault().is_some() {
            return None;
        }
        if session.is_established() {
            return Some(());
        }
        match stream.read(&mut bytes) {
            Ok(len @ 1..) => session.receive(&bytes[..len], |_| {}),
            _ => session.stream_ended(),
        };
    }
}

/// Moves bytes in both directions. `early`: bytes that have arrived for the client.
fn relay(plain: TcpStream, secured: TcpStream, session: Session, early: &[u8]) {
    _ = plain.set_nodelay(true).and((&plain).write_all(early));
    let session = Arc::new(Mutex::new(session));
    let (plain, secured) = (Arc::new(plain), Arc::new(secured));
    let (its_plain, its_secured, its_session) =
        (Arc::clone(&plain), Arc::clone(&secured), Arc::clone(&session));
    thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        loop {
            let len = (&*its_plain).read(&mut bytes).unwrap_or(0);
            let mut sealed = Vec::new();
            let mut session = its_session.lock().unwrap_or_else(PoisonError::into_inner);
            match len {
                0 => session.close(&mut sealed),
                _ => _ = session.seal(&bytes[..len], &mut sealed),
            }
            drop(session);
            if (&*its_secured).write_all(&sealed).is_err() || len == 0 {
                _ = its_secured.shutdown(Shutdown::Write);
                return;
            }
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        loop {
            let len = (&*secured).read(&mut bytes).unwrap_or(0);
            let mut text = Vec::new();
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            let received = match len {
                0 => session.stream_ended(),
                _ => session.receive(&bytes[..len], |plaintext| text.extend_from_slice(plaintext)),
            };
            drop(session);
            let is_over = (&*plain).write_all(&text).is_err() || received != Received::Open;
            if is_over {
                _ = plain.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}
