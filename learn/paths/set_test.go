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
