//! The sockets and files of a shim and of a flist server.

use contd_protocol::shim::{Call, InitRecord, Reply, SlotSpec, TaskSpec};
use contd_protocol::{Kind, MAX_CONTROL_BODY_BYTES, flistfs};
use contd_types::Exit;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api_frames::{frames, message};

/// The first byte selects: if even, a connection; if odd, a file of the lease directory.
pub fn check(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 8 {
        1 => file::<TaskSpec>(bytes),
        3 => file::<SlotSpec>(bytes),
        5 => file::<InitRecord>(bytes),
        7 => file::<Exit>(bytes),
        _ => connection(bytes, usize::from(*kind) + 1),
    }
}

fn connection(bytes: &[u8], cut: usize) {
    for frame in frames(bytes, cut, MAX_CONTROL_BODY_BYTES) {
        match frame.kind {
            Kind::Call => {
                message::<Call>(&frame.body);
                message::<flistfs::Call>(&frame.body);
            }
            Kind::Reply => {
                message::<Reply>(&frame.body);
                message::<flistfs::Reply>(&frame.body);
            }
            // These kinds are checked for the API socket, or are not allowed here.
            Kind::Hello | Kind::HelloReply | Kind::Item | Kind::Cancel | Kind::Credit => {}
        }
    }
}

fn file<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(found) = serde_json::from_slice::<T>(bytes) else { return };
    let again = serde_json::to_vec(&found).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), found, "writing changes it");
}
