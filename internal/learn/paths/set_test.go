// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

func TestSetRoundTrip(t *testing.T) {
	var s Set
	for i := range 20 {
		s.Add("GET", fmt.Sprintf("/a/%d/x", i))
		s.Add("POST", "/a/cus_NffrFeUfNV2Hib99x")
	}
	b, err := json.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	var back Set
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if c, _ := json.Marshal(&back); !bytes.Equal(b, c) {
		t.Errorf("%s, want %s", c, b)
	}
	if got := fmt.Sprint(s.Templates()); got != "[{GET /a/*/x segment 2 is int 20 0.95} {POST /a/cus_* segment 2 is token 20 0.95}]" {
		t.Error(got)
	}
}

// To ask for the size does no work: it is asked for with every request. The bounds are applied only when twice
// of them is exceeded.
func TestSizeIsFree(t *testing.T) {
	var s Set
	for i := range maxGroups + 10 {
		if !s.Add("GET", fmt.Sprintf("/%c%c/x", 'a'+i%26, 'a'+i/26)) {
			t.Fatal("not added")
		}
	}
	if size := s.Size(); len(s.groups) != maxGroups+10 || size != len(s.groups)*(overhead+len("GET/aa/x")) {
		t.Errorf("%d bytes, %d groups", size, len(s.groups))
	}
	if s.Len() != maxGroups || s.Size() != maxGroups*(overhead+len("GET/aa/x")) {
		t.Errorf("%d patterns, %d bytes", s.Len(), s.Size())
	}
}
