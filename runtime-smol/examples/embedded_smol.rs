//! Example of an embedded cluster: starts five nodes on files, writes and reads, prints their
//! events, and stops them.
//!
//! Run it with `cargo run -p coracle-runtime-smol --example embedded_smol`.

use std::error::Error;
use std::rc::Rc;

use coracle_runtime_smol::{
    Cluster, Key, Medium, NodeReport, Options, Outcome, Scan, Settings, SyncPolicy, Value,
};
use smol::LocalExecutor;

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let medium = Medium::Folder { path: folder.path().to_owned(), sync: SyncPolicy::Always };
    let options = Options { settings: Settings::default(), medium, listen: None, admin_listen: None };
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let cluster = Cluster::start(&executor, options).await?;
        let events = cluster.events();
        let watch = executor.spawn(async move {
            while let Ok(event) = events.recv().await {
                println!("{event}");
            }
        });

        let client = cluster.client();
        let snack = Key::new("snack")?;
        let (chips, nuts) = (Value::from_text("chips")?, Value::from_text("nuts")?);
        client.put(snack.clone(), chips.clone()).await?;
        println!("get: {:?}", client.get(snack.clone()).await?);
        let swapped = client.cas(snack.clone(), Some(chips), nuts).await? == Outcome::Done;
        println!("swapped: {swapped}");
        let all =
            Scan { prefix: String::new(), after: None, items_max: 10, bytes_max: 1 << 20, ..Scan::default() };
        println!("scan: {:?}", client.scan(all).await?.items);
        for NodeReport { node, status, .. } in client.status().await? {
            println!("node {node}: {status:?}");
        }
        println!("deleted: {}", client.delete(snack).await?);

        cluster.stop().await;
        watch.cancel().await;
        Ok(())
    }))
}

#[test]
fn it_runs() {
    main().unwrap();
}
