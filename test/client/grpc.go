// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcstatus "google.golang.org/grpc/status"
)

// bytesCodec passes messages as they are: no generated code is needed.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (bytesCodec) Name() string { return "bytes" }

func init() { encoding.RegisterCodec(bytesCodec{}) }

// callGRPC opens a stream both ways and sends each text once the one before it
// has come back, so that nothing between the two ends may wait for the whole.
func callGRPC(args []string) (result, error) {
	o := newOptions()
	plain := o.Bool("plain", false, "")
	ca := o.String("ca", "", "")
	if err := o.parse(args, 3, -1); err != nil {
		return result{}, err
	}
	config, err := tlsConfig(*ca)
	if err != nil {
		return result{}, err
	}
	secure := credentials.NewTLS(config)
	if *plain {
		secure = insecure.NewCredentials()
	}
	r := result{Target: o.Arg(0) + o.Arg(1)}
	conn, err := grpc.NewClient("dns:///"+o.Arg(0), grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("bytes")))
	if err != nil {
		return r, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, o.Arg(1))
	if err != nil {
		return r, err
	}
	if err := r.echoes(stream, o.Args()[2:]); err != nil {
		return r, fmt.Errorf("grpc %s: %w", grpcstatus.Code(err), err)
	}
	r.Trailer = http.Header{}
	for name, values := range stream.Trailer() {
		r.Trailer[http.CanonicalHeaderKey(name)] = values
	}
	return r, nil
}

func (r *result) echoes(stream grpc.ClientStream, texts []string) error {
	for _, text := range texts {
		out := []byte(text)
		if err := stream.SendMsg(&out); err != nil && err != io.EOF { // then RecvMsg says why
			return err
		}
		var in []byte
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		r.Messages = append(r.Messages, string(in))
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var in []byte
	if err := stream.RecvMsg(&in); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("one message too many: %s", strings.TrimSpace(string(in)))
		}
		return err
	}
	return nil
}
