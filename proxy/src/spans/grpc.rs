//! OTLP over gRPC: one connection, made anew when it is gone.

use std::time::Duration;

use ::http::HeaderMap;
use hyper_util::rt::TokioIo;
use prost::Message;
use selvedge_xds::proto::{
    discovery,
    traces::{ExportTraceServiceRequest, RetryInfo},
};
use tonic::{
    Code, Status,
    metadata::MetadataMap,
    transport::{Channel, Endpoint, Uri},
};

use super::{ANSWER, Outcome, connect::Connector, otlp};
use crate::{channel::explain, grpc::traces::trace_service_client::TraceServiceClient};

/// How often it is looked whether a connection on which nothing comes is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Speaks to one collector.
pub(super) struct Client {
    service: TraceServiceClient<Channel>,
    headers: MetadataMap,
}

impl Client {
    pub(super) fn new(connector: Connector, headers: &HeaderMap) -> Self {
        let endpoint = Endpoint::from(connector.collector.uri.clone())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(super::PATIENCE);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await.map(TokioIo::new) }
        }));
        let service = TraceServiceClient::new(channel).max_decoding_message_size(ANSWER);
        Self { service, headers: MetadataMap::from_headers(headers.clone()) }
    }

    pub(super) async fn send(&mut self, message: &ExportTraceServiceRequest) -> Outcome {
        let mut request = tonic::Request::new(message.clone());
        *request.metadata_mut() = self.headers.clone();
        match self.service.export(request).await {
            Ok(answer) => Outcome::Taken { rejected: otlp::rejected(answer.into_inner()) },
            Err(status) => failed(&status),
        }
    }
}

/// What a status means (OTLP specification, "Failures").
fn failed(status: &Status) -> Outcome {
    let after = retry_info(status);
    let why = match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.code(), explain(source)),
        None => format!("{}: {}", status.code(), status.message()),
    };
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Outcome::Again { after, why },
        // Whoever will have room again says when.
        Code::ResourceExhausted if after.is_some() => Outcome::Again { after, why },
        // As tonic says of a connection that broke.
        Code::Unknown if std::error::Error::source(status).is_some() => Outcome::Again { after, why },
        _ => Outcome::Refused(why),
    }
}

/// When a collector wants to be asked again: `google.rpc.RetryInfo` in the details of its status.
fn retry_info(status: &Status) -> Option<Duration> {
    let details = discovery::Status::decode(status.details()).ok()?.details;
    let found = details.into_iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*found.value).ok()?.retry_delay?;
    Some(Duration::from_secs(u64::try_from(delay.seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_the_protocol_lets_be_sent_again_is() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Aborted, Code::DataLoss] {
            assert!(matches!(failed(&Status::new(code, "")), Outcome::Again { after: None, .. }), "{code}");
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::Internal, Code::Unknown] {
            assert!(
                matches!(failed(&Status::new(code, "no")), Outcome::Refused(why) if why.ends_with(": no")),
                "{code}"
            );
        }
    }

    #[test]
    fn who_is_full_is_asked_again_when_it_says_so() {
        let full = |details: Vec<u8>| Status::with_details(Code::ResourceExhausted, "full", Bytes::from(details));
        assert!(matches!(failed(&full(Vec::new())), Outcome::Refused(_)));
        let seconds = [0x0a, 0x02, 0x08, 0x07]; // RetryInfo { retry_delay: 7 s }
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let mut any = vec![0x0a, url.len() as u8];
        any.extend(url);
        any.extend([0x12, seconds.len() as u8]);
        any.extend(seconds);
        let mut details = vec![0x08, 0x08, 0x1a, any.len() as u8];
        details.extend(any);
        assert!(matches!(failed(&full(details)), Outcome::Again { after: Some(after), .. } if after.as_secs() == 7));
    }
}
