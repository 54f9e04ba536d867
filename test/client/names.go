// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/coder/websocket"
	"github.com/miekg/dns"
)

// lookup asks a name server one question and prints the answer as it is.
func lookup(args []string) (result, error) {
	o := newOptions()
	server := o.String("server", "", "")
	tcp := o.Bool("tcp", false, "")
	if err := o.parse(args, 1, 2); err != nil {
		return result{}, err
	}
	qtype := dns.TypeA
	if o.NArg() == 2 {
		var ok bool
		if qtype, ok = dns.StringToType[strings.ToUpper(o.Arg(1))]; !ok {
			return result{}, usageError{fmt.Sprintf("unknown type %q", o.Arg(1))}
		}
	}
	r := result{Target: o.Arg(0)}
	if *server == "" {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return r, err
		}
		if len(conf.Servers) == 0 {
			return r, fmt.Errorf("no name server in /etc/resolv.conf")
		}
		*server = net.JoinHostPort(conf.Servers[0], conf.Port)
	}
	client := &dns.Client{Timeout: o.timeout}
	if *tcp {
		client.Net = "tcp"
	}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(o.Arg(0)), qtype), *server)
	if err != nil {
		return r, err
	}
	r.Remote, r.Rcode = *server, dns.RcodeToString[reply.Rcode]
	for _, record := range reply.Answer {
		r.Answers = append(r.Answers, strings.TrimPrefix(record.String(), record.Header().String()))
	}
	return r, nil
}

// webSocket sends each text as a message and prints the answers, one for one.
func webSocket(args []string) (result, error) {
	o := newOptions()
	header := headers{}
	o.Var(header, "H", "")
	protocol := o.String("p", "", "")
	compress := o.Bool("z", false, "")
	if err := o.parse(args, 2, -1); err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	r := result{Target: o.Arg(0)}
	options := &websocket.DialOptions{HTTPHeader: http.Header(header)}
	if *protocol != "" {
		options.Subprotocols = []string{*protocol}
	}
	if *compress { // as browsers do
		options.CompressionMode = websocket.CompressionContextTakeover
		options.CompressionThreshold = 1
	}
	conn, response, err := websocket.Dial(ctx, o.Arg(0), options)
	if response != nil {
		r.Status = response.StatusCode
	}
	if err != nil {
		return r, err
	}
	defer conn.CloseNow()
	for _, text := range o.Args()[1:] {
		if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			return r, err
		}
		_, message, err := conn.Read(ctx)
		if err != nil {
			r.Close = max(int(websocket.CloseStatus(err)), 0)
			return r, err
		}
		r.Messages = append(r.Messages, string(message))
	}
	return r, conn.Close(websocket.StatusNormalClosure, "")
}
