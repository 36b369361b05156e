//! A client on a pipe that says and hears WebSocket messages.

use super::*;

/// A client.
pub(in crate::tests) struct Reader {
    pub(in crate::tests) pipe: DuplexStream,
    pub(in crate::tests) buffer: Vec<u8>,
    /// The close code, once it came.
    pub(in crate::tests) close: Option<u16>,
}

impl Reader {
    pub(in crate::tests) async fn say(&mut self, message: Value) {
        let text = message.to_string();
        let mut frame = Vec::new();
        crate::protocol::ws::text_frame(&text, &mut frame);
        let head = frame.len() - text.len();
        frame[1] |= 0x80;
        // A mask of zeros leaves the payload as it is.
        frame.splice(head..head, [0, 0, 0, 0]);
        self.pipe
            .write_all(&frame)
            .await
            .expect("the session takes messages");
    }

    pub(in crate::tests) async fn subscribe(&mut self, after: Option<&str>) {
        let mut message = json!({"type": "subscribe", "id": "1", "stream": "observations"});
        if let Some(after) = after {
            message["after"] = json!(after);
        }
        self.say(message).await;
    }

    /// GraphQL's handshake, as somebody whom the upgrade has named.
    pub(in crate::tests) async fn init(&mut self) {
        self.say(json!({"type": "connection_init"})).await;
        self.until("connection_ack").await;
    }

    /// Begins a GraphQL operation.
    pub(in crate::tests) async fn operate(&mut self, id: &str, query: &str, after: Option<&str>) {
        let mut payload = json!({"query": query});
        if let Some(after) = after {
            payload["extensions"] = json!({"after": after});
        }
        self.say(json!({"type": "subscribe", "id": id, "payload": payload}))
            .await;
    }

    /// The next text message; none when the connection is over.
    pub(in crate::tests) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((opcode, payload)) = self.frame() {
                match opcode {
                    1 => return Some(serde_json::from_slice(&payload).expect("the server sends JSON")),
                    8 => {
                        self.close = Some(u16::from_be_bytes([payload[0], payload[1]]));
                        return None;
                    }
                    9 => {
                        // Answer the ping, or the session is closed for silence.
                        let _gone = self.pipe.write_all(&[0x8A, 0x80, 0, 0, 0, 0]).await;
                        continue;
                    }
                    _ => continue,
                }
            }
            let mut chunk = vec![0; 4096];
            let count = self.pipe.read(&mut chunk).await.expect("the pipe is whole");
            if count == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let opcode = self.buffer.first()? & 0x0f;
        let (head, length) = match *self.buffer.get(1)? {
            126 => (
                4,
                usize::from(u16::from_be_bytes([*self.buffer.get(2)?, *self.buffer.get(3)?])),
            ),
            127 => {
                let bytes: [u8; 8] = self.buffer.get(2..10)?.try_into().unwrap();
                (10, usize::try_from(u64::from_be_bytes(bytes)).unwrap())
            }
            short => (2, usize::from(short)),
        };
        if self.buffer.len() < head + length {
            return None;
        }
        let payload = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Some((opcode, payload))
    }

    /// Reads until a message of this type.
    pub(in crate::tests) async fn until(&mut self, kind: &str) -> Value {
        let wanted = async {
            loop {
                let message = self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the session ended before {kind}"));
                if message["type"] == kind {
                    return message;
                }
            }
        };
        timeout(Duration::from_secs(120), wanted)
            .await
            .unwrap_or_else(|_| panic!("no {kind} came"))
    }

    /// The next event: its number, and its cursor.
    pub(in crate::tests) async fn event(&mut self) -> (i64, String) {
        let message = self.until("event").await;
        let number = message["event"]["data"]["n"]
            .as_i64()
            .expect("the test's events are numbered");
        (number, message["cursor"].as_str().unwrap().to_owned())
    }

    /// So many events.
    pub(in crate::tests) async fn events(&mut self, count: usize) -> (Vec<i64>, String) {
        let mut numbers = Vec::new();
        let mut last = String::new();
        for _ in 0..count {
            let (number, cursor) = self.event().await;
            numbers.push(number);
            last = cursor;
        }
        (numbers, last)
    }

    /// Nothing but heartbeats comes for a while.
    pub(in crate::tests) async fn is_quiet(&mut self) -> bool {
        let something = async {
            loop {
                match self.next().await {
                    Some(message) if message["type"] == "cursor" || message["type"] == "pong" => {}
                    other => return other,
                }
            }
        };
        timeout(Duration::from_millis(500), something).await.is_err()
    }

    /// Answers pings for a while, as a client does that has nothing to say.
    pub(in crate::tests) async fn idle(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Ok(message) = tokio::time::timeout_at(end, self.next()).await {
            assert!(message.is_some(), "the session ended");
        }
    }

    /// Reads to the end; tells the types of the messages.
    pub(in crate::tests) async fn read_to_end(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await {
            all.push(message);
        }
        all
    }

    /// Breaks the connection off.
    pub(in crate::tests) fn cut(self) {}
}
