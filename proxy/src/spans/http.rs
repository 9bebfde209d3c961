//! OTLP over HTTP/1.1 with protobuf: one POST for each batch, on a connection of its own.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use prost::Message;
use selvedge_xds::proto::traces::{ExportTraceServiceRequest, ExportTraceServiceResponse};

use super::{ANSWER, Outcome, connect::Connector, otlp};
use crate::{channel::explain, http::reply};

/// Speaks to one collector.
pub(super) struct Client {
    pub(super) connector: Connector,
    pub(super) headers: HeaderMap,
}

/// What can go wrong on the way, all of which may be gone the next time.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(super) async fn send(&self, message: &ExportTraceServiceRequest) -> Outcome {
        match self.exchange(message).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Again { after: None, why: explain(&*error) },
        }
    }

    async fn exchange(&self, message: &ExportTraceServiceRequest) -> Result<Outcome, Failure> {
        let io = TokioIo::new(self.connector.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        let answer = async {
            let response = sender.send_request(self.request(message)?).await?;
            Ok(outcome(response).await)
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => Err(ended.err().map_or_else(|| "it closed the connection without an answer".into(), Into::into)),
        }
    }

    fn request(&self, message: &ExportTraceServiceRequest) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = &self.connector.collector.uri;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::post(target).body(Full::new(Bytes::from(message.encode_to_vec())))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers
            .insert(header::HOST, HeaderValue::from_str(uri.authority().map_or("", |authority| authority.as_str()))?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(otlp::AGENT));
        Ok(request)
    }
}

/// What an answer means (OTLP specification, "OTLP/HTTP Response").
async fn outcome(response: Response<Incoming>) -> Outcome {
    let status = response.status();
    let after = reply::retry_after(&response);
    if status.is_success() {
        // Taken it is, whatever else a collector says, and however much of that.
        let body = Limited::new(response.into_body(), ANSWER).collect().await.map(|body| body.to_bytes());
        let answer = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body).ok());
        return Outcome::Taken { rejected: otlp::rejected(answer.unwrap_or_default()) };
    }
    failed(status, after)
}

fn failed(status: StatusCode, after: Option<Duration>) -> Outcome {
    let why = format!("it answered with {status}");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Outcome::Again { after, why },
        _ => Outcome::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_gone_the_next_time_is_sent_again() {
        let after = Some(Duration::from_secs(7));
        for status in [429, 502, 503, 504] {
            let outcome = failed(StatusCode::from_u16(status).unwrap(), after);
            assert!(matches!(outcome, Outcome::Again { after: told, .. } if told == after), "{status}: {outcome:?}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(matches!(failed(StatusCode::from_u16(status).unwrap(), after), Outcome::Refused(_)), "{status}");
        }
    }
}
