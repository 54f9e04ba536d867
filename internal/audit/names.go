// SPDX-License-Identifier: Apache-2.0

package audit

import "strings"

// class is what OCSF 1.8 says of an event class.
type class struct {
	short      string // in shorthand lines
	name       string
	category   uint32
	categories string         // the category's name
	activities map[string]int // by upper-case caption
}

var classes = map[Class]class{
	ClassFinding: {"FINDING", "Detection Finding", 2, "Findings",
		map[string]int{"CREATE": 1, "UPDATE": 2, "CLOSE": 3}},
	ClassNetwork: {"NET", "Network Activity", 4, "Network Activity",
		map[string]int{"OPEN": 1, "CLOSE": 2, "RESET": 3, "FAIL": 4, "REFUSE": 5, "TRAFFIC": 6, "LISTEN": 7}},
	ClassHTTP: {"HTTP", "HTTP Activity", 4, "Network Activity",
		map[string]int{"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8,
			"PATCH": 9}},
	ClassDNS: {"DNS", "DNS Activity", 4, "Network Activity",
		map[string]int{"QUERY": 1, "RESPONSE": 2, "TRAFFIC": 6}},
	ClassConfig: {"CONFIG", "Device Config State Change", 5, "Discovery",
		map[string]int{"LOG": 1, "COLLECT": 2}},
	ClassLifecycle: {"LIFECYCLE", "Application Lifecycle", 6, "Application Activity",
		map[string]int{"INSTALL": 1, "REMOVE": 2, "START": 3, "STOP": 4, "RESTART": 5, "ENABLE": 6, "DISABLE": 7,
			"UPDATE": 8}},
}

var unknownClass = class{short: "EVENT", name: "Base Event", categories: "Uncategorized"}

func (c Class) info() class {
	if i, ok := classes[c]; ok {
		return i
	}
	return unknownClass
}

const activityOther = 99

// activity is OCSF's activity_id and activity_name: an activity that the class does not list
// is Other, under its own name.
func (e *Event) activity() (int, string) {
	name := strings.ToUpper(e.Activity)
	if name == "" {
		return 0, "Unknown"
	}
	if id, ok := e.Class.info().activities[name]; ok {
		return id, name[:1] + strings.ToLower(name[1:])
	}
	return activityOther, escape(e.Activity, maxWord, "")
}

var actionNames = map[Action]string{
	ActionAllowed: "Allowed", ActionDenied: "Denied", ActionObserved: "Observed",
}

var dispositionNames = map[Disposition]string{
	DispositionAllowed: "Allowed", DispositionBlocked: "Blocked", DispositionLogged: "Logged",
}

var severityNames = map[Severity][2]string{
	SeverityInformational: {"Informational", "INFO"}, SeverityLow: {"Low", "LOW"},
	SeverityMedium: {"Medium", "MED"}, SeverityHigh: {"High", "HIGH"},
}

// severity is the event's own, or what fits what became of it.
func (e *Event) severity() Severity {
	switch {
	case e.Severity >= SeverityInformational && e.Severity <= SeverityHigh:
		return e.Severity
	case e.Action == ActionDenied || e.Disposition == DispositionLogged:
		return SeverityMedium
	}
	return SeverityInformational
}
