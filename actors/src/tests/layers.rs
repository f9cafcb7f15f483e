//! Where the writable layer lies is the spec's to say, then the node's; one in memory is freed with each end.

use contd_rootfs::fake::{Call, Outcome};
use contd_types::{ContainerSpec, ErrorKind, LayerKind, StateName};

use super::{World, delete, run, spec, start_again, until, until_state, wait};

fn in_memory(name: &str) -> ContainerSpec {
    ContainerSpec { layer: Some(LayerKind::Memory), ..spec(name) }
}

/// The calls that the provider got, one word for each.
fn asked(world: &World) -> Vec<&'static str> {
    let word = |call: &Call| match call {
        Call::Prepare(request) if request.layer == LayerKind::Memory => "memory",
        Call::Prepare(_) => "disk",
        Call::FreeMemory { .. } => "free",
        Call::Release { .. } => "release",
        Call::TakeDown => "take down",
        Call::Recover => "recover",
    };
    world.rootfs.calls().iter().map(word).filter(|word| *word != "recover").collect()
}

#[actix::test]
async fn a_layer_in_memory_is_freed_with_each_end_and_before_the_next_start() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, in_memory("web")).await.unwrap();
    for _ in 0..2 {
        world.shims.exit_code(&id, 0);
        wait(&node, "web").await.unwrap();
        until("it is settled", async || asked(&world).last() == Some(&"free")).await;
        start_again(&node, "web").await.unwrap();
    }
    world.shims.exit_code(&id, 0);
    until_state(&node, "web", StateName::Stopped).await;
    delete(&node, "web", true).await.unwrap();
    let asked = asked(&world);
    assert_eq!(asked[..5], ["memory", "free", "memory", "free", "memory"]);
    assert_eq!(asked.last(), Some(&"release"));
    world.assert_empty();
}

#[actix::test]
async fn a_layer_on_disk_is_left_alone_when_its_container_ends_and_is_the_default() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.exit_code(&id, 0);
    wait(&node, "web").await.unwrap();
    start_again(&node, "web").await.unwrap();
    delete(&node, "web", true).await.unwrap();
    assert_eq!(asked(&world), ["disk", "disk", "release"]);
    let mut config = world.config();
    config.settings.defaults.layer = LayerKind::Memory;
    let other = World::another();
    let node = other.start_with(config);
    run(&node, spec("web")).await.unwrap();
    assert_eq!(asked(&other), ["memory"]);
}

#[actix::test]
async fn a_directory_that_another_container_has_is_refused_with_its_name() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("owner")).await.unwrap();
    world.rootfs.script_prepare([Outcome::UpperInUse]);
    let error = run(&node, spec("late")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.chain().contains("container owner of namespace a"), "{}", error.chain());
}
