//! Example of an embedded cluster: starts five nodes on files, writes and reads, prints their
//! events, and stops them.
//!
//! Run it with `cargo run -p coracle-runtime-threads --example embedded_threads`.

use std::error::Error;
use std::thread;

use coracle_runtime_threads::{
    Cluster, Key, Medium, NodeReport, Options, Outcome, Scan, Settings, SyncPolicy, Value,
};

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let medium = Medium::Folder { path: folder.path().to_owned(), sync: SyncPolicy::Always };
    let cluster =
        Cluster::start(Options { settings: Settings::default(), medium, listen: None, admin_listen: None })?;
    let events = cluster.events().ok_or("nobody took the events before")?;
    let watch = thread::spawn(move || events.iter().for_each(|event| println!("{event}")));

    let client = cluster.client();
    let snack = Key::new("snack")?;
    let (chips, nuts) = (Value::from_text("chips")?, Value::from_text("nuts")?);
    client.put(snack.clone(), chips.clone())?;
    println!("get: {:?}", client.get(snack.clone())?);
    let swapped = client.cas(snack.clone(), Some(chips), nuts)? == Outcome::Done;
    println!("swapped: {swapped}");
    let all =
        Scan { prefix: String::new(), after: None, items_max: 10, bytes_max: 1 << 20, ..Scan::default() };
    println!("scan: {:?}", client.scan(all)?.items);
    for NodeReport { node, status, .. } in client.status()? {
        println!("node {node}: {status:?}");
    }
    println!("deleted: {}", client.delete(snack)?);

    cluster.stop();
    watch.join().map_err(|_| "the watcher panicked")?;
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
