//! Targets as operators see them: what is sent to whom and with what, changed while the
//! agent runs, with the real binary in namespaces.

#[path = "targets/extradata.rs"]
mod extradata;
#[path = "targets/filter.rs"]
mod filter;
#[path = "targets/live.rs"]
mod live;
#[path = "targets/reload.rs"]
mod reload;
#[path = "targets/scale.rs"]
mod scale;
#[path = "targets/scene.rs"]
mod scene;
#[path = "targets/selftests.rs"]
mod selftests;
