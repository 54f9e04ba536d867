// SPDX-License-Identifier: Apache-2.0

package paths

import "strings"

// vocabulary holds the words that APIs name their own segments with, as against the names of
// what they hold: those in the paths of at least six providers of the half of the descriptions that
// test/learneval tunes on. Sorted.
var vocabulary = func() map[string]bool {
	words := map[string]bool{}
	for w := range strings.FieldsSeq(apiWords) {
		words[w] = true
	}
	return words
}()

const apiWords = `
accept access account accounts action actions activate active activities activity add additional address
addresses admin agent alert alerts aliases all analysis analytics and api app application applications apply
approval approve apps archive areas articles as assets assign assignments attachment attachments attribute
attributes audio audit auth authentication authorization authorizations authorize auto availability available
avatar background balance bank base basic batch billing block blocks book build bulk business by cache
calculate calendar call callback calls campaigns cancel card cards catalog categories category certificates
change changes channel channels chat check checkout checks cities classes client clients close cloud code
codes collection collections commands comment comments companies company complete components config configs
configuration configurations confirm connect connection connections contact contacts content conversations
convert copy cost count countries country counts create credential credentials credit csv currencies currency
current custom customer customers daily data date default defaults definitions delete deleted delivery
deployments detail details device devices direct disable dns document documents domain domains download edit
email emails employee employees enable end entities entity entries environment environments errors estimate
event events exchange expense export exports external failed feature features feed feedback field fields file
files filter filters financial find flag folders for forms free from game generate geo get google group
groups health help historical history html icons id identity ids image images import in inbound index info
information insights instance instances integration integrations internal inventory invitations invite
invoice invoices ip ips is issues item items jobs join journal json key keys label labels languages last
latest leave level license likes line lines link linked links list lists live local location locations lock
log login logo logout logs lookup map maps markets master match me media member members memberships merge
message messages meta metadata methods metrics mobile model models monitor monitoring move multi my name
names namespaces network networks new nodes note notes notification notifications number numbers oauth object
of on one online open operations options order orders organization organizations owner packages pages parent
parse participants partner partners password patch pause payment payments pdf pending performance permission
permissions phone photo ping plan plans player players playlists points policies policy pools position
positions post posts preferences preview price prices private process product products profile profiles
progress project projects promote properties provider providers provision public publish purchase purchases
push query questions queues quote quotes random rate rates raw read recent recipients record recordings
records references refresh refund regions register registration registrations reject related relationships
release remove replies report reports request requests resend reservations reset resize resource resources
response rest restart restore result results resume retrieve retry return reverse review reviews revoke role
roles rooms rotate route rules run sales save schedule scheduled schedules schema schemas scopes scripts
search secret secrets segments self send senders series server servers service services session sessions set
sets setting settings setup share shared shipment shipping show sites sms snapshots source sources ssh start
state statistics stats status statuses step steps stock stop storage store streams sub submissions submit
subscription subscriptions suggestions summaries summary supported sync system tag tags target targets task
tasks tax team teams template templates term test text thumbnail time to token tokens top topic total
tracking tracks transaction transactions transfer transfers triggers type types unit update updates upload
uploads url urls usage user username users validate value values variables vat vendors verification verify
version versions video videos view views virtual voice web webhook webhooks with words workflow workflows
workspaces write xml year
`
