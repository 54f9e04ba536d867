// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// upgradesOf returns the protocols that a request asks to switch to (RFC 9110 section 7.8), as it spells them. A
// server may choose any of them. It leaves out h2c, which carries requests that nobody would decide on: a server
// without it goes on in HTTP/1, as every client of it expects.
func upgradesOf(r *http.Request) (names []string) {
	if r.ProtoMajor != 1 || !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		return nil
	}
	for _, value := range r.Header["Upgrade"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, "h2c") {
				names = append(names, name)
			}
		}
	}
	return names
}

var errUnasked = errors.New("the origin switched to a protocol that was not asked for")

// checkUpgrade checks that an origin's 101 is for one of the protocols that were asked for. It makes that the
// only one, as the reverse proxy compares what was asked for with what was chosen.
func checkUpgrade(asked *http.Request, resp *http.Response) error {
	chosen := resp.Header["Upgrade"]
	if len(chosen) != 1 || !httpguts.HeaderValuesContainsToken(asked.Header["Upgrade"], chosen[0]) {
		return errUnasked
	}
	asked.Header["Upgrade"] = chosen
	return nil
}
