//! Tests of transactions: their text, their faults and their limits.

use super::*;

fn txn(conditions: &str, then: &str, otherwise: &str) -> Result<Txn, TxnError> {
    Txn::from_json(Some(conditions), Some(then), Some(otherwise))
}

fn text(txn: &Txn) -> String {
    let mut text = String::new();
    txn.push_json(&mut text);
    text
}

#[test]
fn a_transaction_is_encoded_as_documented_and_parsed_back() {
    let (conditions, then, otherwise) = (
        r#"[{"key":"a","rev":3},{"key":"b","value":[1, 2]},{"key":"ü\"","absent":true}]"#,
        r#"[{"op":"put","key":"a","value":"x"},{"op":"delete","key":"b"},{"op":"incr","key":"c","by":-5}]"#,
        r#"[{"op":"get","key":"a"},{"op":"get","key":"a"}]"#,
    );
    let parsed = txn(conditions, then, otherwise).unwrap();
    let expected =
        format!("\"if\":{},\"then\":{then},\"else\":{otherwise}", conditions.replace("1, 2", "1,2"));
    assert_eq!(text(&parsed), expected);
    assert_eq!(parsed.text_bytes(), expected.len());
    assert_eq!(
        Txn::from_json(None, None, None).map(|txn| text(&txn)).as_deref(),
        Ok("\"if\":[],\"then\":[],\"else\":[]")
    );
}

#[test]
fn each_fault_is_reported_with_its_place() {
    let put = r#"{"op":"put","key":"a","value":1}"#;
    for (conditions, then, otherwise, message) in [
        ("{}", "[]", "[]", "\"if\": a list of objects is expected"),
        ("[]", "[1]", "[]", "\"then\"[0]: an operation is"),
        ("[]", "[]", r#"[{"op":"get","key":"a","x":1}]"#, "\"else\"[0]: an operation is"),
        (r#"[{"key":"a"}]"#, "[]", "[]", "\"if\"[0]: a condition has exactly one of"),
        (r#"[{"key":"a","rev":1,"absent":true}]"#, "[]", "[]", "\"if\"[0]: a condition has exactly one of"),
        (r#"[{"key":"a","absent":false}]"#, "[]", "[]", "\"if\"[0]: a condition has exactly one of"),
        (r#"[{"key":"a","value":null}]"#, "[]", "[]", "\"if\"[0]: a value must not be null"),
        (r#"[{"key":"a","rev":-1}]"#, "[]", "[]", "\"if\"[0]: a condition is"),
        ("[]", r#"[{"op":"scan","key":"a"}]"#, "[]", "\"then\"[0]: \"op\" is"),
        ("[]", r#"[{"op":"put","key":"a"}]"#, "[]", "\"then\"[0]: a put has"),
        ("[]", r#"[{"op":"get","key":"a","value":1}]"#, "[]", "\"then\"[0]: a put has"),
        ("[]", r#"[{"op":"get","key":""}]"#, "[]", "\"then\"[0]: a key must not be empty"),
        ("[]", r#"[{"op":"incr","key":"a","by":1.5}]"#, "[]", "\"then\"[0]: an operation is"),
        ("[]", r#"[{"op":"put","key":"a","value":null}]"#, "[]", "\"then\"[0]: a value must not be null"),
        (
            "[]",
            &format!("[{put},{{\"op\":\"incr\",\"key\":\"a\",\"by\":1}}]"),
            "[]",
            "\"then\"[1]: a branch writes",
        ),
    ] {
        let error = txn(conditions, then, otherwise).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(txn("[]", &format!("[{put}]"), &format!("[{put}]")).is_ok(), "each branch may write it");
}

#[test]
fn only_small_transactions_that_delete_count_as_deletes() {
    let only_deletes = |conditions: &str, then: &str| txn(conditions, then, "[]").unwrap().only_deletes();
    let delete = r#"[{"op":"delete","key":"a"},{"op":"get","key":"b"}]"#;
    assert!(only_deletes(r#"[{"key":"a","rev":3}]"#, delete));
    assert!(!only_deletes(r#"[{"key":"a","value":"large"}]"#, delete));
    assert!(!only_deletes("[]", r#"[{"op":"get","key":"b"}]"#) && !only_deletes("[]", "[]"));
    assert!(!only_deletes("[]", r#"[{"op":"delete","key":"a"},{"op":"incr","key":"b","by":1}]"#));
}

#[test]
fn numbers_and_sizes_are_limited_exactly() {
    let list = |count: usize, item: &dyn Fn(usize) -> String| {
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","))
    };
    let gets = |count| list(count, &|_| r#"{"op":"get","key":"a"}"#.into());
    let absences = |count| list(count, &|_| r#"{"key":"a","absent":true}"#.into());
    assert!(txn(&absences(TXN_CONDITIONS_MAX), &gets(TXN_OPERATIONS_MAX), "[]").is_ok());
    let too_many = |error: TxnError| error.fault == TxnFault::TooMany;
    assert!(txn(&absences(TXN_CONDITIONS_MAX + 1), "[]", "[]").is_err_and(too_many));
    assert!(txn("[]", &gets(TXN_OPERATIONS_MAX + 1), "[]").is_err_and(too_many));
    assert!(txn("[]", &gets(TXN_OPERATIONS_MAX), &gets(1)).is_err_and(too_many));
    let of_size = |bytes: usize| {
        let put = |number| format!(r#"{{"op":"put","key":"{number}","value":"{}"}}"#, "v".repeat(1000));
        let most = list(100, &put);
        let rest = txn("[]", &most, "[]").map_or(0, |txn| bytes - txn.text_bytes());
        let last = |rest: usize| format!(r#",{{"op":"put","key":"x","value":"{}"}}]"#, "v".repeat(rest));
        let last = last(rest + 1 - last(0).len());
        txn("[]", &(most[..most.len() - 1].to_owned() + &last), "[]")
    };
    assert_eq!(of_size(TXN_BYTES_MAX).map(|txn| txn.text_bytes()), Ok(TXN_BYTES_MAX));
    assert!(of_size(TXN_BYTES_MAX + 1).is_err_and(|error| error.is_too_large()));
}
