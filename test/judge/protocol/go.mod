module chandlery.test/judge/protocol

go 1.26.0
