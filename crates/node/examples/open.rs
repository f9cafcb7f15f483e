//! Opens a node and closes it again. As root, with `contd-shim`, `contd-flistfs` and `contd-seccomp` beside the running
//! program, or named in the configuration.

use contd_node::{Config, Node};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    contd_node::block_on(async {
        let node = Node::open(Config::below("/srv/node")).await?;
        assert!(node.supervisor().connected()); // ask it, as docs/embedding.md shows
        node.close().await; // containers run on
        Ok(())
    })?
}
