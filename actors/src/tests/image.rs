use super::*;
use contd_rootfs::ImageDefaults;
use contd_shim_client::fake::Reaction;
use contd_types::{ExitCause, Signal, UserSpec};

#[actix::test]
async fn what_an_image_adds_is_shown_and_kept_and_its_stop_signal_used_by_a_later_daemon() {
    let world = World::new();
    let image = ImageDefaults {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["not this".into()],
        env: vec!["A=1".into()],
        working_dir: Some("/w".into()),
        user: Some("web".into()),
        stop_signal: Some("SIGINT".into()),
        ..ImageDefaults::default()
    };
    world.rootfs.declare_image("/x.fl", image);
    let interrupt = Signal::new(2).unwrap();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    world.shims.on_signal(&id, Signal::TERM, Reaction::Ignore);
    world.shims.on_signal(&id, interrupt, Reaction::Die);
    end(node).await;

    let node = world.start();
    until_state(&node, "web", StateName::Running).await;
    for _ in 0..2 {
        let shown = inspect(&node, "web").await.unwrap().spec;
        assert_eq!(shown.entrypoint, Some(Entrypoint::Args(vec!["/entry".into(), "/bin/sh".into()])));
        assert_eq!((shown.env, shown.working_dir.as_deref()), (vec!["A=1".to_owned()], Some("/w")));
        assert_eq!((shown.user, shown.stop_signal), (UserSpec::new("web").ok(), Some(interrupt)));
        // The spec on record stays as it was asked for.
        assert_eq!(world.store.records()[0].spec, spec("web"));
        assert_eq!(stop(&node, "web").await.unwrap().cause, ExitCause::Signal(interrupt));
        start_again(&node, "web").await.unwrap();
    }
    delete(&node, "web", true).await.unwrap();
    world.assert_empty();
}

#[actix::test]
async fn an_image_that_cannot_be_run_as_it_says_leaves_nothing() {
    let world = World::new();
    let image = ImageDefaults { user: Some("no such form".into()), ..ImageDefaults::default() };
    world.rootfs.declare_image("/x.fl", image);
    let node = world.start();
    let refused = run(&node, spec("web")).await.unwrap_err();
    assert_eq!(refused.kind, contd_types::ErrorKind::Corrupt, "{refused:?}");
    assert!(refused.hint.is_some_and(|hint| hint.contains("--user")));
    world.assert_empty();
}
