// A client of the ext_proc port as gateways written in Go have it: grpc-go, with messages as plain bytes.
//
// It plays one recorded conversation over each of many streams at once, one connection for all, after asking the
// health service; prints one JSON object.
package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// raw leaves messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string { return "proto" }

type result struct {
	Health  string     `json:"health"`  // base64 of the answer
	Unknown uint32     `json:"unknown"` // status of a method that isn't there
	Replies [][]string `json:"replies"` // base64, for each stream
	Codes   []uint32   `json:"codes"`   // of the streams
}

func main() {
	target := flag.String("target", "", "host:port")
	secure := flag.Bool("tls", false, "TLS, whoever the server is")
	streams := flag.Int("streams", 1, "at once")
	expect := flag.Int("expect", 1, "replies to wait for before the client half-closes")
	flag.Parse()
	var messages [][]byte
	if err := json.NewDecoder(os.Stdin).Decode(&messages); err != nil {
		fail(err)
	}
	creds := insecure.NewCredentials()
	if *secure {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	connection, err := grpc.NewClient(*target, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		fail(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	done := result{Replies: make([][]string, *streams), Codes: make([]uint32, *streams)}
	question, answer := []byte{}, []byte{}
	if err := connection.Invoke(ctx, "/grpc.health.v1.Health/Check", &question, &answer); err != nil {
		fail(err)
	}
	done.Health = base64.StdEncoding.EncodeToString(answer)
	done.Unknown = uint32(status.Code(connection.Invoke(ctx, "/no.such/Method", &question, &answer)))
	var all sync.WaitGroup
	for number := range *streams {
		all.Add(1)
		go func() {
			defer all.Done()
			done.Replies[number], done.Codes[number] = converse(ctx, connection, messages, *expect)
		}()
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
		fail(err)
	}
}

func converse(ctx context.Context, connection *grpc.ClientConn, messages [][]byte, expect int) ([]string, uint32) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/envoy.service.ext_proc.v3.ExternalProcessor/Process")
	if err != nil {
		return nil, uint32(status.Code(err))
	}
	for _, message := range messages {
		if err := stream.SendMsg(&message); err != nil {
			return nil, uint32(status.Code(err))
		}
	}
	var replies []string
	for {
		if len(replies) == expect {
			if err := stream.CloseSend(); err != nil {
				return replies, uint32(status.Code(err))
			}
		}
		var reply []byte
		if err := stream.RecvMsg(&reply); err == io.EOF {
			return replies, 0
		} else if err != nil {
			return replies, uint32(status.Code(err))
		}
		replies = append(replies, base64.StdEncoding.EncodeToString(reply))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
