// SPDX-License-Identifier: BSD-2-Clause
//! As much HTTP/1.1 (RFC 9112) as a monitor needs: `GET /metrics`, one request on a connection.
//!
//! `httparse` reads the request; it is what the large servers use, and depends on nothing. Whole
//! servers without an async runtime were no better: tiny_http waits for ever for who is slow, and
//! starts a thread for each.

/// Bytes of a request: a monitor sends some hundreds, a browser a few thousand.
const LONGEST_REQUEST: usize = 16 << 10;
/// Lines of its head.
const MOST_HEADERS: usize = 64;
/// Of the Prometheus text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The answer to a request, made of `metrics` if it asks for them; `None` while more of it has to
/// come.
pub(super) fn answer(request: &[u8], metrics: impl FnOnce() -> String) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < LONGEST_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(response(
                "431 Request Header Fields Too Large",
                PLAIN,
                "too long\n",
                true,
            ));
        }
        Err(error) => {
            let text = format!("this is no HTTP request: {error}\n");
            return Some(response("400 Bad Request", PLAIN, &text, true));
        }
    }
    let path = head.path.unwrap_or("/").split('?').next();
    Some(match (head.method, path) {
        (Some("GET"), Some("/metrics")) => response("200 OK", PROMETHEUS, &metrics(), true),
        (Some("HEAD"), Some("/metrics")) => response("200 OK", PROMETHEUS, &metrics(), false),
        (Some("GET" | "HEAD"), _) => {
            let text = "mptunnel: the metrics are at /metrics\n";
            response("404 Not Found", PLAIN, text, head.method == Some("GET"))
        }
        _ => response("405 Method Not Allowed\r\nAllow: GET, HEAD", PLAIN, "only GET\n", true),
    })
}

/// The answer to who is one too many.
pub(super) fn busy(text: &str) -> Vec<u8> {
    response("503 Service Unavailable", PLAIN, &format!("{text}\n"), true)
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    // No page of another origin may read it, nor guess what it is.
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: \
         no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut response = head.into_bytes();
    if with_body {
        response.extend_from_slice(body.as_bytes());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &str) -> Option<String> {
        answer(request.as_bytes(), || "m 1\n".to_owned()).map(|a| String::from_utf8(a).unwrap())
    }

    #[test]
    fn a_monitor_gets_the_metrics_and_the_head_alone_if_it_asks_for_that() {
        let get = text("GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let head = text("HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();

        assert!(get.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(get.ends_with("\r\n\r\nm 1\n") && get.contains("Content-Length: 4\r\n"));
        assert_eq!(head, get.trim_end_matches("m 1\n"));
    }

    #[test]
    fn half_a_request_waits_for_the_other_half_but_not_without_a_bound() {
        let half = "GET /metrics HTTP/1.1\r\nHost: h\r\n";
        assert_eq!(text(half), None);
        assert_eq!(text(""), None);

        let endless = format!("{half}X: {}", "x".repeat(LONGEST_REQUEST));
        assert!(text(&endless).unwrap().starts_with("HTTP/1.1 431 "));
        let many = format!("{half}{}", "A: b\r\n".repeat(MOST_HEADERS));
        assert!(text(&many).unwrap().starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn anything_else_is_refused_by_its_number() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("{\"ask\":\"status\"}\n", "400"),
            ("GET /metrics HTTP/3\r\n\r\n", "400"),
        ] {
            let answer = text(request).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
    }
}
