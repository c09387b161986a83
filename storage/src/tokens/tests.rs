use coracle_core::access::Gate;

use super::*;

fn entry(name: &str, role: Role, prefixes: &[&str], token: Option<&str>) -> TokenEntry {
    let prefixes = prefixes.iter().map(|prefix| Box::from(*prefix)).collect();
    let grant = Grant { name: name.into(), role, prefixes };
    TokenEntry { grant, expires: None, digest: token.map(digest_of) }
}

#[test]
fn a_file_is_parsed_as_it_was_encoded() {
    let mut file = TokenFile::default();
    let till = TokenEntry {
        expires: Some(1_795_000_000),
        ..entry("till-4", Role::Write, &["till/", "ü"], Some("t"))
    };
    for entry in [till, entry("backup", Role::Admin, &[], None)] {
        assert_eq!(file.add(entry), Ok(()));
    }
    let digest = "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8";
    assert_eq!(
        file.encode(),
        format!(
            "{{\"name\":\"till-4\",\"role\":\"write\",\"prefixes\":[\"till/\",\"ü\"],\"expires\":1795000000,\
             \"sha256\":\"{digest}\"}}\n{{\"name\":\"backup\",\"role\":\"admin\"}}\n"
        )
    );
    assert_eq!(TokenFile::parse(&format!("\n{}\n", file.encode())), Ok(file.clone()));
    assert!(file.remove("till-4") && !file.remove("till-4"));
    assert_eq!(file.entries().len(), 1);
}

#[test]
fn a_file_with_a_fault_is_rejected_as_a_whole() {
    let digest = "0".repeat(64);
    let good = format!(r#"{{"name":"a","role":"read","sha256":"{digest}"}}"#);
    let long = "n".repeat(TOKEN_NAME_BYTES_MAX + 1);
    let many = vec!["\"p\""; TOKEN_PREFIXES_MAX + 1].join(",");
    let long_prefix = "p".repeat(KEY_BYTES_MAX + 1);
    for (line, fault) in [
        ("nonsense".to_owned(), TokenFault::Form),
        (r#"{"name":"b"}"#.into(), TokenFault::Form),
        (r#"{"name":"b","role":"read","rights":1}"#.into(), TokenFault::Form),
        (r#"{"name":"","role":"read"}"#.into(), TokenFault::Name),
        (format!(r#"{{"name":"{long}","role":"read"}}"#), TokenFault::Name),
        (r#"{"name":"b:c","role":"read"}"#.into(), TokenFault::Name),
        (r#"{"name":"a","role":"read"}"#.into(), TokenFault::NameTwice),
        (r#"{"name":"b","role":"root"}"#.into(), TokenFault::Role),
        (r#"{"name":"b","role":"read","prefixes":[""]}"#.into(), TokenFault::Prefixes),
        (format!(r#"{{"name":"b","role":"read","prefixes":[{many}]}}"#), TokenFault::Prefixes),
        (format!(r#"{{"name":"b","role":"read","prefixes":["{long_prefix}"]}}"#), TokenFault::Prefixes),
        (r#"{"name":"b","role":"admin","prefixes":["b/"]}"#.into(), TokenFault::AdminWithPrefixes),
        (r#"{"name":"b","role":"read","sha256":"00"}"#.into(), TokenFault::Digest),
        (format!(r#"{{"name":"b","role":"read","sha256":"+{}"}}"#, &digest[1..]), TokenFault::Digest),
        (format!(r#"{{"name":"b","role":"read","sha256":"{digest}"}}"#), TokenFault::Digest),
    ] {
        let text = format!("{good}\n{line}\n");
        assert_eq!(TokenFile::parse(&text), Err(TokenFileError { line: 2, fault }), "{line}");
    }
    let all: String =
        (0..=TOKENS_MAX).map(|at| format!("{{\"name\":\"n{at}\",\"role\":\"read\"}}\n")).collect();
    let too_many = TokenFileError { line: TOKENS_MAX + 1, fault: TokenFault::TooLarge };
    assert_eq!(TokenFile::parse(&all), Err(too_many));
    let too_long = " ".repeat(TOKEN_FILE_BYTES_MAX + 1);
    assert_eq!(TokenFile::parse(&too_long), Err(TokenFileError { line: 0, fault: TokenFault::TooLarge }));
}

#[test]
fn a_gate_knows_tokens_by_their_digest_and_certificates_by_their_name() {
    let mut file = TokenFile::default();
    file.add(entry("a", Role::Read, &[], Some("secret"))).unwrap();
    file.add(TokenEntry { expires: Some(100), ..entry("b", Role::Admin, &[], None) }).unwrap();
    let gate = TokenGate::new(file.clone(), 50);
    let name = |proof: &Proof| gate.grant(proof).map(|grant| grant.name.to_string());
    let (token, certificate) = (gate.proof_of("secret"), |name: &str| Proof::Certificate(name.into()));
    assert_eq!(name(&token).as_deref(), Some("a"));
    assert_eq!(name(&gate.proof_of("Secret")), None);
    assert_eq!(name(&certificate("a")).as_deref(), Some("a"));
    assert_eq!(name(&certificate("b")).as_deref(), Some("b"));
    assert_eq!(name(&certificate("c")), None);
    gate.expire(99);
    assert_eq!(gate.generation(), 0);
    gate.expire(100);
    assert_eq!((gate.generation(), name(&certificate("b"))), (1, None));
    file.remove("a");
    gate.replace(file, 100);
    assert_eq!((gate.generation(), name(&token)), (2, None));
    gate.note_failure();
    assert_eq!((gate.take_failures(), gate.take_failures()), (1, 0));
}

#[test]
fn tokens_are_long_and_differ() {
    let (one, other) = (new_token().unwrap(), new_token().unwrap());
    assert!(one != other && one.len() == "coracle_".len() + 64 && one.starts_with("coracle_"));
    assert!(one.len() <= coracle_core::access::TOKEN_BYTES_MAX);
}
