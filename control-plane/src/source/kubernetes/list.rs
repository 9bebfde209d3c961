//! Complete lists of a kind, page by page.

use std::time::Duration;

use kube::core::{params::ListParams, request::Request};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::time::timeout;

use super::{
    ANSWER,
    pruned::{Api, Key, Pruned, Version},
};
use crate::source::Change;

/// How many objects a page has: one is in memory as text at a time.
const PAGE: u32 = 500;

/// Everything there is of a kind at one version.
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    pub(super) version: Version,
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: Metadata,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: Version,
    #[serde(default, rename = "continue")]
    next: String,
}

/// Whether any object passes, looked for page by page until one does.
pub(super) async fn any<T: Pruned>(
    client: &kube::Client,
    api: &Api,
    answer: Duration,
    passes: fn(&T) -> bool,
) -> kube::Result<Option<Key>> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page: Page<T> = page(client, api, &params, answer).await?;
        if let Some(found) = page.items.iter().find(|item| passes(item)) {
            return Ok(Some(found.key()));
        }
        if page.metadata.next.is_empty() {
            return Ok(None);
        }
        params = params.continue_token(&page.metadata.next);
    }
}

/// The version that the API server is at. It is that of its data, and no cache's.
pub(super) async fn version(client: &kube::Client, api: &Api, answer: Duration) -> kube::Result<Version> {
    let page: Page<IgnoredAny> = page(client, api, &ListParams::default().limit(1), answer).await?;
    Ok(page.metadata.resource_version)
}

/// Lists everything, consistently: pages after the first are of the first one's version. Each comes within `answer`.
pub(super) async fn all<T: Pruned>(client: &kube::Client, api: &Api, answer: Duration) -> kube::Result<List<T>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut items = Vec::new();
    loop {
        let page: Page<T> = page(client, api, &params, answer).await?;
        items.extend(page.items);
        if page.metadata.next.is_empty() {
            return Ok(List { items, version: page.metadata.resource_version });
        }
        params = params.continue_token(&page.metadata.next);
    }
}

/// All that there is of a kind now, as its watch would tell it.
pub(super) async fn told<T: Pruned>(client: kube::Client, api: Api) -> kube::Result<Vec<Change>> {
    let listed = all::<T>(&client, &api, ANSWER).await?;
    Ok(listed.items.into_iter().map(|item| Change::Put(item.key().of(api.kind), item.reading(&api))).collect())
}

async fn page<T: DeserializeOwned>(
    client: &kube::Client,
    api: &Api,
    params: &ListParams,
    answer: Duration,
) -> kube::Result<Page<T>> {
    let request = Request::new(api.path.clone()).list(params).map_err(kube::Error::BuildRequest)?;
    timeout(answer, client.request(request)).await.map_err(|_| unanswered(answer))?
}

/// The error of a server that lets a connection live, and does not answer.
pub(crate) fn unanswered(answer: Duration) -> kube::Error {
    kube::Error::Service(format!("no answer within {answer:?}").into())
}
