//! An S3 server with buckets in memory, by the crate `s3s`, which checks signatures as Amazon does.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::dto::{GetObjectInput, GetObjectOutput, PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

pub const USER: &str = "AKIAEXAMPLE";
pub const SECRET: &str = "a/secret+with:special@characters";
/// The secret as it is written in a URL.
pub const SECRET_IN_URL: &str = "a%2Fsecret%2Bwith%3Aspecial%40characters";

/// The objects of the two buckets, `public` (anyone may read) and `private`, by bucket and key.
type Objects = Arc<Mutex<HashMap<(String, String), Vec<u8>>>>;

struct Buckets(Objects);

/// The policy of the buckets: a signed request may do all, an unsigned one may read `public`.
struct Policy;

#[async_trait::async_trait]
impl S3Access for Policy {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let reads_public = context.s3_op().name() == "GetObject"
            && context.s3_path().as_object().is_some_and(|(bucket, _)| bucket == "public");
        if context.credentials().is_some() || reads_public { Ok(()) } else { Err(s3_error!(AccessDenied)) }
    }
}

#[async_trait::async_trait]
impl S3 for Buckets {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, .. } = request.input;
        if !["public", "private"].contains(&bucket.as_str()) {
            return Err(s3_error!(NoSuchBucket));
        }
        let object = self.0.lock().unwrap().get(&(bucket, key)).cloned().ok_or_else(|| s3_error!(NoSuchKey))?;
        let content_length = i64::try_from(object.len()).ok();
        let body = Some(StreamingBlob::new(Body::from(object)));
        Ok(S3Response::new(GetObjectOutput { body, content_length, ..GetObjectOutput::default() }))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let PutObjectInput { bucket, key, body, .. } = request.input;
        if !["public", "private"].contains(&bucket.as_str()) {
            return Err(s3_error!(NoSuchBucket));
        }
        let mut body = Body::from(body.ok_or_else(|| s3_error!(IncompleteBody))?);
        let bytes = body.store_all_limited(1 << 20).await.map_err(|_| s3_error!(IncompleteBody))?;
        self.0.lock().unwrap().insert((bucket, key), bytes.to_vec());
        Ok(S3Response::new(PutObjectOutput::default()))
    }
}

/// A server for one test; it ends with the process.
pub struct S3Server {
    pub address: String,
    pub objects: Objects,
}

impl S3Server {
    #[track_caller]
    pub fn start() -> Self {
        let objects = Objects::default();
        let mut builder = S3ServiceBuilder::new(Buckets(Arc::clone(&objects)));
        builder.set_auth(SimpleAuth::from_single(USER, SECRET));
        builder.set_access(Policy);
        let service = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let service = service.clone();
                    tokio::task::spawn_local(async move {
                        let http = hyper::server::conn::http1::Builder::new();
                        // A client may disconnect at any time.
                        let _gone = http.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                    });
                }
            }));
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
