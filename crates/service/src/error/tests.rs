use super::*;

#[test]
fn a_cause_never_reaches_the_caller() {
    let status = Status::from(Error::internal("password=hunter2"));
    assert_eq!(status.code(), Code::Internal);
    assert!(!format!("{status:?}").contains("hunter2"));
}

#[test]
fn every_wrong_field_is_named_in_the_details() {
    let status = Status::from(Error::invalid("page_size", "must be at most 1000"));
    let bad = status.get_error_details().bad_request().expect("field violations").clone();
    assert_eq!(bad.field_violations[0].field, "page_size");
    let info = status.get_error_details().error_info().expect("error info").clone();
    assert_eq!(info.reason, "INVALID_FIELD");
}

#[test]
fn http_answers_are_the_contracts_table() {
    let of = |kind| Error::new(kind, "R", "").http();
    for (kind, status, code) in [
        (Kind::InvalidArgument, 400, "invalid-parameter"),
        (Kind::Unauthenticated, 401, "unauthorized"),
        (Kind::PermissionDenied, 403, "missing-scope"),
        (Kind::NotFound, 404, "not-found"),
        (Kind::FailedPrecondition, 409, "conflict"),
        (Kind::ResourceExhausted, 429, "limit-exceeded"),
        (Kind::Unavailable, 503, "unavailable"),
        (Kind::DeadlineExceeded, 503, "unavailable"),
        (Kind::Unimplemented, 404, "not-found"),
        (Kind::DataLoss, 500, "internal"),
        (Kind::Internal, 500, "internal"),
    ] {
        assert_eq!((of(kind).0.as_u16(), of(kind).1), (status, code), "{kind:?}");
    }
    assert_eq!(Error::invalid_body("").http().1, "invalid-body");
    assert_eq!(Error::new(Kind::FailedPrecondition, UNCONFIGURED, "").http().1, "unconfigured");
    assert_eq!(Error::request_too_large().http().0.as_u16(), 413);
    let answer = Error::unavailable("away").into_response();
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    let answer = Error::new(Kind::Unauthenticated, "R", "").into_response();
    assert!(answer.headers().contains_key(header::WWW_AUTHENTICATE));
}

/// What all headers of a status take at most.
const STATUS_BYTES_MAX: usize = 4096;

/// What a status takes as headers, names included.
fn headers_bytes(error: Error) -> usize {
    let headers = Status::from(error).into_http::<()>().headers().clone();
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[test]
fn a_status_is_as_long_as_clients_take_headers() {
    let violation =
        |field: &str, description: &str| Violation { field: field.into(), description: description.into() };
    for filler in ["x", "é", "\u{1f600}", " ", "\0"] {
        let long = filler.repeat(100_000);
        for count in [1, 2, 7, 12, 13, 1000] {
            let error = Error::invalid_all(vec![violation(&long, &long); count]);
            let bytes = headers_bytes(error.retry_after(Duration::MAX));
            assert!(bytes <= STATUS_BYTES_MAX, "{bytes} of {count} times {filler:?}");
        }
        let bytes = headers_bytes(Error::invalid_body(long));
        assert!(bytes <= STATUS_BYTES_MAX, "{bytes} of {filler:?}");
    }
}

#[test]
fn what_fits_into_a_status_is_whole_and_the_rest_is_cut() {
    let told = |violations: Vec<Violation>| {
        let status = Status::from(Error::invalid_all(violations));
        let details = status.get_error_details();
        let violations = details.bad_request().unwrap().field_violations.clone();
        (status.message().to_owned(), violations.into_iter().map(|v| (v.field, v.description)))
    };
    let of =
        |field: &str, bytes: usize| Violation { field: field.into(), description: "é".repeat(bytes / 2) };
    let room = VIOLATIONS_BYTES_MAX - VIOLATION_BYTES - 1;
    let (_, mut fits) = told(vec![of("a", room)]);
    assert_eq!(fits.next(), Some(("a".into(), "é".repeat(room / 2))));
    let (message, mut cut) = told(vec![of("a", room + 2)]);
    let description = cut.next().unwrap().1;
    assert!(description.ends_with("é…") && description.len() <= room, "{description}");
    assert!(message.starts_with("a: é") && message.ends_with("é…") && message.len() <= MESSAGE_BYTES_MAX);
    // One that is long leaves the others theirs; of very many the first are named.
    let (_, several) = told(vec![of("a", 10), of("b", 5000), of("c", 300)]);
    let lengths: Vec<_> = several.map(|(_, description)| description.len()).collect();
    assert!(lengths[0] == 10 && lengths[1] > 400 && lengths[2] == 300, "{lengths:?}");
    assert_eq!(told(vec![of("a", 4); VIOLATIONS_MAX]).1.count(), VIOLATIONS_MAX);
    assert_eq!(told(vec![of("a", 4); VIOLATIONS_MAX + 1]).1.count(), VIOLATIONS_MAX);
}

#[test]
fn another_surface_may_call_the_fields_its_own_way() {
    let error = Error::invalid("definition.path", "must be given");
    let renamed = error.with_fields_named(|field| field.replace("definition.", ""));
    assert_eq!(
        (renamed.to_string().as_str(), &*renamed.violations()[0].field),
        ("path: must be given", "path")
    );
}

#[test]
fn unavailable_says_when_to_come_again() {
    let full = deadpool_postgres::PoolError::Timeout(deadpool_postgres::TimeoutType::Wait);
    for error in [Error::unavailable("away"), Error::database_busy(), full.into()] {
        let status = Status::from(error);
        let delay = status.get_error_details().retry_info().and_then(|r| r.retry_delay);
        assert_eq!(delay, Some(RETRY_AFTER), "{status:?}");
    }
}

#[test]
fn what_lies_with_the_caller_is_told_from_what_fails() {
    let told = |kind, reason| no_failure(&Error::new(kind, reason, "").into());
    for reason in NO_FAILURES {
        assert_eq!(told(Kind::Unavailable, reason), Some(reason));
        assert_eq!(told(Kind::Internal, reason), None);
    }
    assert_eq!(no_failure(&Error::unavailable("away").into()), None);
    assert_eq!(no_failure(&Status::unavailable("by a proxy")), None);
    let over_http = |error: Error| error.into_response().extensions().get().map(|NoFailure(told)| *told);
    assert_eq!(over_http(Error::new(Kind::Unavailable, TOO_SLOW, "")), Some(TOO_SLOW));
    assert_eq!(over_http(Error::new(Kind::DeadlineExceeded, "ANY", "")), Some("DEADLINE_EXCEEDED"));
    assert_eq!(over_http(Error::unavailable("away")), None);
}
