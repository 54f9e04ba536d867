// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"openshell.ai/openshell/internal/version"
)

// ocsfVersion is the schema that the events follow, https://schema.ocsf.io/1.8.0/.
const ocsfVersion = "1.8.0"

// Bounds, in bytes, where a machine reads more than a person.
const (
	maxFilePath     = 4096
	maxStatusDetail = 1024
	maxAncestors    = 64
)

// The parts of an OCSF event that are in use, named as in the schema.
type (
	ocsfEvent struct {
		ClassUID      Class            `json:"class_uid"`
		ClassName     string           `json:"class_name"`
		CategoryUID   uint32           `json:"category_uid"`
		CategoryName  string           `json:"category_name"`
		ActivityID    int              `json:"activity_id"`
		ActivityName  string           `json:"activity_name"`
		TypeUID       uint64           `json:"type_uid"`
		TypeName      string           `json:"type_name"`
		SeverityID    Severity         `json:"severity_id"`
		Severity      string           `json:"severity"`
		StatusID      int              `json:"status_id"`
		Status        string           `json:"status"`
		StatusDetail  string           `json:"status_detail,omitempty"`
		Time          int64            `json:"time"`
		Message       string           `json:"message,omitempty"`
		Metadata      ocsfMetadata     `json:"metadata"`
		ActionID      Action           `json:"action_id"`
		Action        string           `json:"action"`
		DispositionID Disposition      `json:"disposition_id"`
		Disposition   string           `json:"disposition"`
		Actor         *ocsfActor       `json:"actor,omitempty"`
		DstEndpoint   *ocsfEndpoint    `json:"dst_endpoint,omitempty"`
		Connection    *ocsfConnection  `json:"connection_info,omitempty"`
		Query         *ocsfQuery       `json:"query,omitempty"`
		HTTPRequest   *ocsfRequest     `json:"http_request,omitempty"`
		HTTPResponse  *ocsfResponse    `json:"http_response,omitempty"`
		FirewallRule  *ocsfRule        `json:"firewall_rule,omitempty"`
		FindingInfo   *ocsfFindingInfo `json:"finding_info,omitempty"`
		App           *ocsfProduct     `json:"app,omitempty"`
		Device        *ocsfDevice      `json:"device,omitempty"`
		Container     *ocsfContainer   `json:"container,omitempty"`
		Unmapped      ocsfUnmapped     `json:"unmapped"`
	}
	ocsfMetadata struct {
		Version  string      `json:"version"`
		Product  ocsfProduct `json:"product"`
		Profiles []string    `json:"profiles"`
	}
	ocsfProduct struct {
		Name       string `json:"name"`
		VendorName string `json:"vendor_name"`
		Version    string `json:"version"`
	}
	ocsfActor struct {
		Process *ocsfProcess `json:"process"`
	}
	ocsfProcess struct {
		PID      int          `json:"pid,omitempty"`
		Name     string       `json:"name,omitempty"`
		Path     string       `json:"path,omitempty"`
		File     *ocsfFile    `json:"file,omitempty"`
		Ancestry []ocsfParent `json:"ancestry,omitempty"`
	}
	ocsfParent struct {
		Path string `json:"path"`
	}
	ocsfFile struct {
		Name   string     `json:"name"`
		Path   string     `json:"path"`
		TypeID int        `json:"type_id"` // 1: a regular file
		Hashes []ocsfHash `json:"hashes,omitempty"`
	}
	ocsfHash struct {
		AlgorithmID int    `json:"algorithm_id"` // 3: SHA-256
		Algorithm   string `json:"algorithm"`
		Value       string `json:"value"`
	}
	ocsfEndpoint struct {
		Domain string `json:"domain,omitempty"`
		IP     string `json:"ip,omitempty"`
		Port   uint16 `json:"port,omitempty"`
	}
	ocsfConnection struct {
		DirectionID int    `json:"direction_id"` // 2: outbound
		Protocol    string `json:"protocol_name"`
	}
	ocsfQuery struct {
		Hostname string `json:"hostname"`
	}
	ocsfRequest struct {
		Method string  `json:"http_method"`
		URL    ocsfURL `json:"url"`
	}
	ocsfURL struct {
		Scheme   string `json:"scheme,omitempty"`
		Hostname string `json:"hostname,omitempty"`
		Path     string `json:"path,omitempty"`
		Port     uint16 `json:"port,omitempty"`
	}
	ocsfResponse struct {
		Code int `json:"code"`
	}
	ocsfRule struct {
		Name string `json:"name"`
		Type string `json:"type,omitempty"`
	}
	ocsfFindingInfo struct {
		UID   string `json:"uid"`
		Title string `json:"title"`
	}
	ocsfDevice struct {
		UID    string `json:"uid"`
		TypeID int    `json:"type_id"` // 99: other, which Type names
		Type   string `json:"type"`
	}
	ocsfContainer struct {
		UID string `json:"uid"`
	}
	// ocsfUnmapped is what the schema has no attribute for.
	ocsfUnmapped struct {
		Sandbox string `json:"sandbox,omitempty"`
		Mode    string `json:"mode,omitempty"`
	}
)

// product is what the events name as their source.
var product = ocsfProduct{Name: "openshell", VendorName: "openshell.ai", Version: version.String()}

// MarshalOCSF is the event as one OCSF 1.8 JSON object, without a line end. What came from
// the workload is escaped and bounded as in Shorthand.
func MarshalOCSF(e Event) ([]byte, error) {
	info, severity := e.Class.info(), e.severity()
	activity, activityName := e.activity()
	o := ocsfEvent{
		ClassUID: e.Class, ClassName: info.name,
		CategoryUID: info.category, CategoryName: info.categories,
		ActivityID: activity, ActivityName: activityName,
		TypeUID:    uint64(e.Class)*100 + uint64(activity),
		TypeName:   info.name + ": " + activityName,
		SeverityID: severity, Severity: severityNames[severity][0],
		StatusID: 1, Status: "Success",
		StatusDetail: Escape(e.Reason, maxStatusDetail),
		Time:         millis(e.Time),
		Message:      Escape(e.Message, maxMessage),
		Metadata: ocsfMetadata{
			Version: ocsfVersion, Product: product, Profiles: []string{"security_control", "container"},
		},
		ActionID: e.Action, Action: cmp.Or(actionNames[e.Action], "Unknown"),
		DispositionID: e.Disposition, Disposition: cmp.Or(dispositionNames[e.Disposition], "Unknown"),
		Unmapped: ocsfUnmapped{Sandbox: Escape(e.Sandbox, maxName), Mode: Escape(e.Mode, maxWord)},
	}
	if e.Action == ActionDenied {
		o.StatusID, o.Status = 2, "Failure"
	}
	if e.Policy != "" || e.Engine != "" {
		o.FirewallRule = &ocsfRule{Name: escapeToken(e.Policy, maxName), Type: Escape(e.Engine, maxWord)}
	}
	if e.Container != "" {
		o.Container = &ocsfContainer{UID: Escape(e.Container, maxName)}
	}
	e.addProcess(&o)
	e.addDestination(&o)
	e.addSubject(&o)

	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&o); err != nil {
		return nil, fmt.Errorf("encoding an audit event: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func (e *Event) addProcess(o *ocsfEvent) {
	p := e.Process
	if p == nil {
		return
	}
	file := &ocsfFile{Name: Escape(path.Base(p.Path), maxName), Path: Escape(p.Path, maxFilePath), TypeID: 1}
	if p.SHA256 != "" {
		file.Hashes = []ocsfHash{{AlgorithmID: 3, Algorithm: "SHA-256", Value: Escape(p.SHA256, maxWord)}}
	}
	process := &ocsfProcess{PID: p.PID, Name: file.Name, Path: file.Path, File: file}
	for _, a := range p.Ancestors[:min(len(p.Ancestors), maxAncestors)] {
		process.Ancestry = append(process.Ancestry, ocsfParent{Path: Escape(a, maxFilePath)})
	}
	o.Actor = &ocsfActor{Process: process}
}

func (e *Event) addDestination(o *ocsfEvent) {
	if !e.addressed() {
		return
	}
	host := Escape(e.Host, maxName)
	endpoint := &ocsfEndpoint{Domain: host, Port: e.Port}
	if e.IP.IsValid() {
		endpoint.IP = e.IP.String()
	}
	if host == endpoint.IP {
		endpoint.Domain = ""
	}
	o.DstEndpoint = endpoint
	if e.Protocol != "" {
		o.Connection = &ocsfConnection{DirectionID: 2, Protocol: Escape(e.Protocol, maxWord)}
	}
	if e.Class == ClassDNS {
		o.Query = &ocsfQuery{Hostname: host}
	}
	if h := e.HTTP; h != nil {
		o.HTTPRequest = &ocsfRequest{Method: Escape(h.Method, maxWord), URL: ocsfURL{
			Scheme: Escape(h.Scheme, maxWord), Hostname: host, Path: Escape(h.path(), maxFilePath), Port: e.Port,
		}}
		if h.Status != 0 {
			o.HTTPResponse = &ocsfResponse{Code: h.Status}
		}
	}
}

// addSubject adds what some classes require an event to be about.
func (e *Event) addSubject(o *ocsfEvent) {
	switch e.Class {
	case ClassFinding:
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%s\x00%s", e.Sandbox, e.Time.UnixNano(), e.Message, e.Reason))
		o.FindingInfo = &ocsfFindingInfo{
			UID:   hex.EncodeToString(sum[:8]),
			Title: cmp.Or(o.Message, o.StatusDetail, strings.ToLower(o.ActivityName)),
		}
	case ClassLifecycle:
		o.App = &product
	case ClassConfig:
		o.Device = &ocsfDevice{UID: Escape(e.Sandbox, maxName), TypeID: 99, Type: "Sandbox"}
	}
}
