//! An OpenTelemetry collector: takes spans by OTLP over gRPC and keeps them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span as WireSpan, span::SpanKind},
};
use sluice_tests::{Issued, eventually};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// A span as it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What the process told of itself.
    pub resource: BTreeMap<String, String>,
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    /// Empty for the first of a trace.
    pub parent: String,
    /// Ids of the spans it is linked to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    /// 2 is an error.
    pub status: i32,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A running collector. Ends when dropped.
pub struct Collector {
    scheme: &'static str,
    address: SocketAddr,
    spans: Spans,
    /// All that was delivered, as text, to be searched.
    everything: Arc<Mutex<String>>,
    _stop: DropGuard,
}

impl Collector {
    /// In plain text.
    pub async fn start() -> Self {
        Self::serve("http", Server::builder()).await
    }

    /// Over TLS, with this certificate.
    pub async fn start_tls(issued: &Issued) -> Self {
        let identity = Identity::from_pem(&issued.certificate, &issued.key);
        let tls = ServerTlsConfig::new().identity(identity);
        Self::serve("https", Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(scheme: &'static str, mut server: Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, everything) = (Spans::default(), Arc::default());
        let service =
            TraceServiceServer::new(Receiver { spans: spans.clone(), everything: Arc::clone(&everything) });
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(
            server
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped),
        );
        Self { scheme, address, spans, everything, _stop: stop.drop_guard() }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// All spans of a trace, and those of other traces that are linked to it.
    pub fn of_trace(&self, trace: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.trace == trace).collect()
    }

    pub fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    pub fn everything(&self) -> String {
        self.everything.lock().unwrap().clone()
    }

    /// Waits for the one span of this name in a trace.
    pub async fn span(&self, trace: &str, name: &str) -> Span {
        let what = format!("the span {name} of the trace {trace}");
        let found = || async {
            let mut found: Vec<_> =
                self.of_trace(trace).into_iter().filter(|span| span.name == name).collect();
            assert!(found.len() < 2, "twice: {found:#?}");
            found.pop()
        };
        eventually(&what, found).await
    }
}

struct Receiver {
    spans: Spans,
    everything: Arc<Mutex<String>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        self.everything.lock().unwrap().push_str(&format!("{request:?}\n"));
        for of_process in request.resource_spans {
            let resource = texts(of_process.resource.unwrap_or_default().attributes);
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| received(span, &resource)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn received(span: WireSpan, resource: &BTreeMap<String, String>) -> Span {
    Span {
        resource: resource.clone(),
        kind: span.kind(),
        trace: hex::encode(&span.trace_id),
        id: hex::encode(&span.span_id),
        parent: hex::encode(&span.parent_span_id),
        links: span.links.iter().map(|link| hex::encode(&link.span_id)).collect(),
        attributes: texts(span.attributes),
        status: span.status.map_or(0, |status| status.code),
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value.unwrap_or_default().value))).collect()
}
