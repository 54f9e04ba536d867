// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVaryingPorts(t *testing.T) {
	type seen struct {
		run    string
		binary string
		host   string
		port   uint16
		kind   Kind
	}
	raw := func(run string, ports ...uint16) (list []seen) {
		for _, port := range ports {
			list = append(list, seen{run, "/usr/bin/curl", "files.example", port, KindRaw})
		}
		return list
	}
	for name, tt := range map[string]struct {
		seen []seen
		want []string // host:port
	}{
		"FTP, one transfer":        {raw("1", 21, 5123), []string{"files.example:5123"}},
		"FTP, several":             {slices.Concat(raw("1", 21, 5123, 40001), raw("2", 21, 6007)), []string{"files.example:40001", "files.example:5123", "files.example:6007"}},
		"FTP with a fixed port":    {slices.Concat(raw("1", 21, 5123), raw("2", 21, 5123)), nil},
		"FTP and a database":       {raw("1", 21, 5432), nil},
		"FTP, data by address":     {append(raw("1", 21), seen{"1", "/usr/bin/curl", "45.64.45.9", 5123, KindRaw}), []string{"45.64.45.9:5123"}},
		"FTP of another program":   {append(raw("1", 5123), seen{"1", "/bin/ftp", "files.example", 21, KindRaw}), nil},
		"FTP of another host":      {append(raw("1", 5123), seen{"1", "/usr/bin/curl", "other.example", 21, KindRaw}), nil},
		"FTP and a low port":       {raw("1", 21, 990), nil},
		"FTP and requests":         {append(raw("1", 21), seen{"1", "/usr/bin/curl", "files.example", 5123, KindHTTP}), nil},
		"two fixed ports":          {slices.Concat(raw("1", 7001, 7002), raw("2", 7001, 7002)), nil},
		"one dynamic port":         {raw("1", 40001), nil},
		"two in one run":           {raw("1", 40001, 40002), nil},
		"three in one run":         {raw("1", 40001, 40002, 40003), []string{"files.example:40001", "files.example:40002", "files.example:40003"}},
		"another in each run":      {slices.Concat(raw("1", 40001), raw("2", 40002)), []string{"files.example:40001", "files.example:40002"}},
		"a dynamic one that stays": {slices.Concat(raw("1", 40001), raw("2", 40001)), nil},
		"one stays, others do not": {slices.Concat(raw("1", 50051, 40001), raw("2", 50051, 40002)), []string{"files.example:40001", "files.example:40002"}},
		"services of each run":     {slices.Concat(raw("1", 7001), raw("2", 7002)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGatherer("p")
			for _, s := range tt.seen {
				d := Denial{Time: time.Unix(1, 0), Host: s.host, Port: s.port, Binary: s.binary, Kind: s.kind, Method: "GET", Path: "/",
					IPs: []netip.Addr{netip.MustParseAddr("45.64.45.9")}}
				if !g.Observe(Run{ID: s.run, Policy: "p"}, d) {
					t.Fatalf("%+v is no evidence", d)
				}
			}
			proposals := g.Proposals()
			for range 2 { // which changes nothing
				var got []string
				for i := range proposals {
					p := &proposals[i]
					notes := strings.Join(p.SecurityNotes, "\n")
					if p.Flags.PortVaries {
						got = append(got, p.Services()...)
					}
					if strings.Count(notes, noteVarying) != map[bool]int{true: 1}[p.Flags.PortVaries] ||
						p.Flags.PortVaries && !strings.Contains(notes, fmt.Sprint(p.target().port)) ||
						((Include{}).LeavesOut(p) == LeftVarying) != p.Flags.PortVaries || (Include{Varying: true}).LeavesOut(p) != "" {
						t.Errorf("%v: flags %+v, notes %q", p.Services(), p.Flags, notes)
					}
				}
				slices.Sort(got)
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				markVarying(proposals)
			}
		})
	}
}
