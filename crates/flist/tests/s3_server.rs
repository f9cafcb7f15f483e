//! Two buckets in memory behind a small S3 server that checks signatures (SigV4 in the query) by a computation of its own.
//!
//! The computation is held to what Amazon publishes and to URLs that botocore 1.44.8, Amazon's own library, has signed.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};

pub const USER: &str = "AKIAEXAMPLE";
pub const SECRET: &str = "a/secret+with:special@characters";
/// The secret as it stands in a URL.
pub const SECRET_IN_URL: &str = "a%2Fsecret%2Bwith%3Aspecial%40characters";

/// How far the clocks of client and server may differ, in seconds.
const SKEW_S: u64 = 15 * 60;

/// The objects of the two buckets, `public` (anyone may read) and `private`, by bucket and key.
type Objects = Arc<Mutex<HashMap<(String, String), Vec<u8>>>>;

/// A server for one test; it ends with the process.
pub struct S3Server {
    pub address: String,
    pub objects: Objects,
}

impl S3Server {
    #[track_caller]
    pub fn start() -> Self {
        let objects = Objects::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Arc::clone(&objects);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), served) = (stream, Arc::clone(&served)) else { return };
                // A client that goes away is no fault of ours.
                thread::spawn(move || serve(stream, &served).is_err());
            }
        });
        Self { address, objects }
    }

    pub fn url(&self, userinfo: &str, bucket: &str) -> String {
        format!("s3://{userinfo}{}/{bucket}", self.address)
    }

    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects.keys().filter(|(of, _)| of == bucket).map(|(_, key)| key.clone()).collect()
    }
}

/// A request as far as it is signed, and its body.
pub struct Request {
    pub method: String,
    /// The path and the query, as they were sent.
    pub target: String,
    pub host: String,
    pub body: Vec<u8>,
}

/// A status with the code that S3 gives for it.
type Refusal = (u16, &'static str);

fn serve(mut stream: TcpStream, objects: &Objects) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let (status, body) = match answer(&request, objects) {
            Ok(body) => (200, body),
            Err((status, code)) => (status, format!("<?xml?><Error><Code>{code}</Code></Error>").into_bytes()),
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.into_bytes(), body].concat())?;
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut host, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "host" => host = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, target, host, body }))
}

/// The policy of the buckets: a signed request may do all, an unsigned one may read `public`.
fn answer(request: &Request, objects: &Objects) -> Result<Vec<u8>, Refusal> {
    let path = request.target.split('?').next().unwrap_or_default();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').ok_or((400, "InvalidURI"))?;
    let place = (bucket.to_owned(), key.to_owned());
    let is_public_read = request.method == "GET" && bucket == "public";
    if request.target.contains("X-Amz-Signature=") {
        check(request, SECRET, now_s())?;
    } else if !is_public_read {
        return Err((403, "AccessDenied"));
    }
    if !["public", "private"].contains(&bucket) {
        return Err((404, "NoSuchBucket"));
    }
    match request.method.as_str() {
        "GET" => objects.lock().unwrap().get(&place).cloned().ok_or((404, "NoSuchKey")),
        "PUT" => {
            objects.lock().unwrap().insert(place, request.body.clone());
            Ok(Vec::new())
        }
        _ => Err((405, "MethodNotAllowed")),
    }
}

fn now_s() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Checks the signature in a query, and that it holds at this time.
///
/// # Errors
/// What S3 answers.
pub fn check(request: &Request, secret: &str, now_s: u64) -> Result<(), Refusal> {
    let malformed = (400, "AuthorizationQueryParametersError");
    let (path, query) = request.target.split_once('?').ok_or(malformed)?;
    let mut fields: BTreeMap<String, String> = query
        .split('&')
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let signature = fields.remove("X-Amz-Signature").ok_or(malformed)?;
    let field = |name: &str| fields.get(name).map(String::as_str).ok_or(malformed);
    let credential: Vec<&str> = field("X-Amz-Credential")?.split('/').collect();
    let [user, day, region, "s3", "aws4_request"] = credential[..] else { return Err(malformed) };
    let time = field("X-Amz-Date")?;
    let signed_s = seconds(time).filter(|_| time.starts_with(day)).ok_or(malformed)?;
    let lifetime_s: u64 = field("X-Amz-Expires")?.parse().map_err(|_| malformed)?;
    if field("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256" || field("X-Amz-SignedHeaders")? != "host" {
        return Err(malformed);
    }
    if ![USER, "AKIAIOSFODNN7EXAMPLE"].contains(&user) {
        return Err((403, "InvalidAccessKeyId"));
    }
    let canonical_query: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let canonical = format!(
        "{}\n{}\n{}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD",
        request.method,
        path.split('/').map(|part| encoded(&decoded(part))).collect::<Vec<_>>().join("/"),
        canonical_query.join("&"),
        request.host
    );
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{time}\n{day}/{region}/s3/aws4_request\n{}", hex(&Sha256::digest(canonical)));
    let first = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = [region, "s3", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part.as_bytes()));
    if hex(&hmac(&key, to_sign.as_bytes())) != signature {
        return Err((403, "SignatureDoesNotMatch"));
    }
    if now_s > signed_s + lifetime_s || signed_s > now_s + SKEW_S {
        return Err((403, "AccessDenied"));
    }
    Ok(())
}

/// HMAC with SHA-256, by its definition (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::digest([&padded(0x36), text].concat());
    Sha256::digest([padded(0x5c).as_slice(), &inner].concat()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a part of a URL as Amazon wants it signed: all but letters, digits and `-._~` as `%XX`.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Reads `20130524T000000Z` as seconds since 1970.
fn seconds(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let is_form = time.len() == 16 && time.get(8..9) == Some("T") && time.ends_with('Z');
    // Days since 1970 of a date, with years that begin in March (Howard Hinnant).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468).filter(|_| is_form)?;
    Some(days * 86_400 + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?)
}
