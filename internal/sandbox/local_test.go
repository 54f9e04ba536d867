// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox/local"
	"openshell.ai/openshell/proxy"
)

// proposal is what a workload asks for.
func proposal(t *testing.T, host string) local.Proposal {
	t.Helper()
	p, err := local.ParseProposal(fmt.Appendf(nil, `{"intent_summary":"why not","operations":[{"addRule":{"ruleName":"web","rule":{
		"endpoints":[{"host":%q,"port":443}],"binaries":[{"path":"/usr/bin/curl"}]}}}]}`, host))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func propose(t *testing.T, s *Sandbox, host string) string {
	t.Helper()
	got, err := s.proposeFor(curl, proposal(t, host))
	if err != nil || len(got) != 1 || !got[0].Accepted || got[0].ID == "" {
		t.Fatalf("got %+v, %v", got, err)
	}
	return got[0].ID
}

func TestProposalIsApprovedAndInForce(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	id := propose(t, s, "asked.example")
	status, err := own{s}.Status(id)
	if err != nil || status.Status != learn.StatusPending || status.Loaded || status.CurrentHash == status.CandidateHash || status.Binary != "/usr/bin/curl" {
		t.Errorf("before: %+v, %v", status, err)
	}
	if s.allows("asked.example") {
		t.Error("a proposal allows something")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type outcome struct {
		status  local.Status
		err     error
		allowed bool
	}
	done := make(chan outcome)
	go func() {
		status, err := own{s}.Await(ctx, id)
		done <- outcome{status, err, s.allows("asked.example")}
	}()
	if _, err := learn.Approve(s.store, "c1", []string{id}, "me"); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil || got.status.Status != learn.StatusApproved || !got.status.Loaded || !got.allowed || got.status.CurrentHash != got.status.CandidateHash {
		t.Errorf("after: %+v", got)
	}
	eventually(t, "the log tells of the proposal", func() bool {
		log := logOf(t, s)
		return strings.Contains(log, "CONFIG:PROPOSED") && strings.Contains(log, id)
	})
}

func TestAwaitOtherOutcomes(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	id := propose(t, s, "asked.example")
	ctx, cancel := context.WithTimeout(t.Context(), 2*decisionPoll)
	defer cancel()
	if status, err := (own{s}).Await(ctx, id); err != nil || status.Status != learn.StatusPending {
		t.Errorf("nobody decides: %+v, %v", status, err)
	}
	if err := learn.Reject(s.store, "c1", id, "no business there", "me"); err != nil {
		t.Fatal(err)
	}
	if status, err := (own{s}).Await(t.Context(), id); err != nil || status.Status != learn.StatusRejected || status.RejectionReason != "no business there" {
		t.Errorf("rejected: %+v, %v", status, err)
	}
	if got, err := s.proposeFor(curl, proposal(t, "asked.example")); err != nil || got[0].Accepted || !strings.Contains(got[0].Reason, "no business there") {
		t.Errorf("asked again: %+v, %v", got, err)
	}
	for _, id := range []string{"p-0123456789abcdef", "", "../x", "a/b", strings.Repeat("p", 1000), "\x00"} {
		if _, err := (own{s}).Status(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := (own{s}).Await(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// A workload sees neither another policy's proposals nor those it did not make.
func TestStatusOfOthersProposals(t *testing.T) {
	c := newNode(t)
	s, other := start(t, c, request(t.TempDir(), "c1")), start(t, c, request(t.TempDir(), "c2"))
	id := propose(t, other, "asked.example")
	if _, err := (own{s}).Status(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another policy's: %v", err)
	}
	other.observe(proxy.Record{Time: time.Now(), Kind: proxy.Connect, Outcome: decision.Denied, Evidence: true, Host: "seen.example", Port: 443, Layer: "l4", Process: curl, Reason: "no"})
	other.Stop()
	all, err := learn.List(s.store, "c2")
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	r := request(t.TempDir(), "c3")
	r.Policy = "c2"
	third := start(t, c, r)
	for _, p := range all {
		if _, err := (own{third}).Status(p.ID); (err == nil) != (p.ID == id) {
			t.Errorf("%s (%s): %v", p.ID, p.Provenance.Mode, err)
		}
	}
}

// What exceeds the maximum is said before anybody reviews it, and an approval
// that cannot be loaded is not told as one that is.
func TestProposalBeyondTheMaximum(t *testing.T) {
	c := newNode(t)
	c.MaximumPolicy = writeMaximum(t, c.PolicyDir, oneRule)
	s := start(t, c, request(t.TempDir(), "c1"))
	id := propose(t, s, "asked.example")
	status, err := own{s}.Status(id)
	if err != nil || !strings.Contains(status.ValidationResult, "maximum") {
		t.Errorf("%+v, %v", status, err)
	}
	if _, err := learn.Approve(s.store, "c1", []string{id}, "me"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	status, err = own{s}.Await(ctx, id)
	if err != nil || status.Status != learn.StatusApproved || status.Loaded || !strings.Contains(status.ApplicationError, "maximum") {
		t.Errorf("%+v, %v", status, err)
	}
}

func TestDenials(t *testing.T) {
	var d denials
	if got := d.last(10); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	note := func(host string, disposition audit.Disposition) {
		d.note(audit.Event{Time: time.Now(), Class: audit.ClassNetwork, Activity: "OPEN", Host: host, Port: 1, Disposition: disposition})
	}
	note("allowed.example", audit.DispositionAllowed)
	for i := range maxDenials + 3 {
		note(fmt.Sprintf("h%d.example", i), []audit.Disposition{audit.DispositionBlocked, audit.DispositionLogged}[i%2])
	}
	got := d.last(2)
	if len(got) != 2 || !strings.Contains(got[0], fmt.Sprintf("h%d.", maxDenials+2)) || !strings.Contains(got[1], fmt.Sprintf("h%d.", maxDenials+1)) {
		t.Errorf("got %q", got)
	}
	if got = d.last(1000); len(got) != maxDenials || !strings.Contains(got[maxDenials-1], "h3.") {
		t.Errorf("%d, the last %q", len(got), got[len(got)-1])
	}
	d.note(audit.Event{Disposition: audit.DispositionBlocked, Reason: strings.Repeat("x", 1<<20), Message: strings.Repeat("\x1b", 1<<20)})
	if line := d.last(1)[0]; len(line) > maxDenialLine || strings.ContainsAny(line, "\x1b\n") {
		t.Errorf("%d bytes", len(line))
	}
}

// What the log has is what the workload is told.
func TestObservedDenialsAreTold(t *testing.T) {
	c := newNode(t)
	s := start(t, c, request(t.TempDir(), "c1"))
	s.observe(proxy.Record{Time: time.Now(), Kind: proxy.Request, Outcome: decision.Denied, Evidence: true, Host: "a.example", Port: 443, Method: "PUT", Path: "/x", Layer: "l7", Process: curl, Reason: "PUT /x not permitted by policy"})
	got := own{s}.Denials(5)
	if len(got) != 1 || !strings.Contains(got[0], "L7_REQUEST denied PUT a.example:443/x") || !strings.Contains(got[0], "[reason:PUT /x not permitted") {
		t.Errorf("got %q", got)
	}
	eventually(t, "the log has the line", func() bool { return strings.Contains(logOf(t, s), got[0]) })
}
