//! The promises of [`ShimClient`], kept by the fake.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use contd_protocol::shim::{RuntimeSpec, TASK_SPEC_VERSION, TaskSpec};
use contd_shim_client::ShimClient;
use contd_shim_client::fake::FakeShimClient;
use contd_types::{ContainerId, NamespaceId, Pid};

#[derive(Default)]
struct FakeNode(FakeShimClient);

impl crate::common::contract::Node for FakeNode {
    fn client(&self) -> &dyn ShimClient {
        &self.0
    }

    fn task(&self, number: u8) -> TaskSpec {
        TaskSpec {
            version: TASK_SPEC_VERSION,
            namespace: NamespaceId::new("t").expect("valid"),
            id: ContainerId::from_random([number; 16]),
            bundle: "/bundle".into(),
            runtime: RuntimeSpec::Oci { binary: "/runc".into(), root: "/root".into() },
            log_path: "/log".into(),
            log_max_bytes: 1,
            log_max_files: 1,
            log_notes: None,
            log_start: None,
            drain_timeout: Duration::from_secs(1),
            runtime_timeout: Duration::from_secs(1),
            input: contd_protocol::shim::TaskInput::default(),
        }
    }

    fn lose_shim(&self, id: &ContainerId) {
        assert!(self.0.lose_shim(id, true), "no shim lives");
    }

    fn is_init_alive(&self, id: &ContainerId, pid: Pid) -> bool {
        self.0.pid_of(id) == Some(pid)
    }

    fn leftovers(&self) -> Vec<String> {
        self.0
            .leases()
            .iter()
            .chain(&self.0.live_shims())
            .chain(&self.0.live_containers())
            .map(ToString::to_string)
            .collect()
    }
}

macro_rules! on_the_fake {
    ($($promise:ident),+ $(,)?) => {
        $(#[tokio::test(start_paused = true)]
        async fn $promise() {
            crate::common::contract::$promise(&FakeNode::default()).await;
        })+
    };
}

on_the_fake!(
    a_life_from_spawn_to_shutdown_where_each_step_may_be_repeated,
    a_second_spawn_connects_to_the_living_shim,
    a_living_shim_is_attached_to_before_and_after_the_end,
    a_lost_shim_gets_a_successor_and_its_container_does_not_notice,
    a_shim_that_is_replaced_or_ended_for_its_silence_costs_its_container_nothing,
    no_shim_is_started_beside_an_orphan,
    an_exit_is_known_after_the_shim_has_gone_too,
);
