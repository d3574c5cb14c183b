//! What the integration tests share: network namespaces.

pub mod netns;
