//! Fetches a flist and reads the first bytes of one of its files.
#![allow(clippy::print_stdout, reason = "an example shows what it has read")]

use std::{path::Path, sync::Arc};

use contd_flist::{BlockCache, Content, Flist, FlistSource, ROOT_INO, RoutePolicy, Routes, fetch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache_root = Path::new("/var/cache/contd");
    let fetched = fetch(&FlistSource::parse("https://hub.example/busybox.fl")?, cache_root, &|_progress| {})?;
    let flist = Arc::new(Flist::open(&fetched.path)?);
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default())?;
    let content = Content::new(Arc::clone(&flist), routes, Arc::new(BlockCache::open(cache_root)?));
    if let Some(file) = flist.lookup(ROOT_INO, b"etc").and_then(|etc| flist.lookup(etc.ino(), b"hostname")) {
        let mut buffer = vec![0; 4096];
        let read = content.read_at(file.ino(), 0, &mut buffer)?; // exact; 0 only at the end of the file
        buffer.truncate(read);
        println!("{}", String::from_utf8_lossy(&buffer));
    }
    Ok(())
}
