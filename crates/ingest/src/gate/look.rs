//! The first round trip of the gate's transaction: presume, lock, read.

use tokio_postgres::Row;

use super::{
    decide::{Presumed, Seen},
    error::GateError,
    rows::{PresumedColumns, counters_of, markers_of, windows_of},
    session::{BEGIN, GateSession},
    trip::{Answer, Trip},
};

/// When everything was locked, by the database's clock.
pub(super) struct Moment {
    /// Of the definitions.
    pub(super) revision: i64,
    /// The transaction's number.
    pub(super) xid: String,
}

impl GateSession {
    /// Presumed rows are inserted as if nothing existed. If something does, the
    /// transaction fails: it is begun anew and does not presume, but passes over what is
    /// there and reads it.
    pub(super) async fn look(
        &self,
        presumed: &Presumed,
        presumes: bool,
    ) -> Result<(Seen, Moment), GateError> {
        if presumes && !(presumed.markers.is_empty() && presumed.windows.is_empty()) {
            self.look_presuming(presumed).await
        } else {
            self.look_at_what_is_there(presumed).await
        }
    }

    /// One trip. Where everything could be inserted, nothing else is in the current slot;
    /// what older ones say comes with it.
    async fn look_presuming(&self, presumed: &Presumed) -> Result<(Seen, Moment), GateError> {
        let (s, given) = (&self.statements, PresumedColumns::of(presumed));
        let mut trip = Trip::default();
        trip.control(BEGIN);
        let uploads = self.lock_uploads(&mut trip, presumed);
        let presume = trip.add(&s.presume, [given.markers(), given.windows()].concat());
        let mut counters = None;
        let mut moment = presume;
        if !presumed.counters.is_empty() {
            trip.add(&s.insert_counters, vec![&presumed.counters]);
            counters = Some(trip.add(&s.lock_counters, vec![&presumed.counters]));
            // Again: counters were waited for.
            moment = trip.add(&s.moment, vec![]);
        }
        let answers = self.answers(&trip).await?;
        let of = |what: &'static str| {
            answers[presume].rows.iter().filter(move |row| row.get::<_, &str>("what") == what)
        };
        let moment = if moment == presume { of("moment").next() } else { answers[moment].rows.first() };
        let (seen, moment) = seen(moment, rows(&answers, uploads), rows(&answers, counters))?;
        let windows = windows_of(&[], of("window"));
        match markers_of(&[], of("marker")) {
            Ok(markers) => Ok((Seen { markers, windows, ..seen }, moment)),
            Err(error) => Err(self.given_up(GateError::Statement(error)).await),
        }
    }

    /// One trip, and another one where something was there: it is read once it is locked.
    async fn look_at_what_is_there(&self, presumed: &Presumed) -> Result<(Seen, Moment), GateError> {
        let (s, given) = (&self.statements, PresumedColumns::of(presumed));
        let (has_markers, has_windows) = (!presumed.markers.is_empty(), !presumed.windows.is_empty());
        let mut trip = Trip::default();
        trip.control(BEGIN);
        let uploads = self.lock_uploads(&mut trip, presumed);
        let markers = has_markers.then(|| trip.insert(&s.insert_markers, given.markers()));
        let windows = has_windows.then(|| trip.insert(&s.insert_windows, given.windows()));
        let old_markers = has_markers.then(|| trip.add(&s.select_old_markers, vec![&given.marker_keys]));
        let old_windows = has_windows.then(|| trip.add(&s.select_old_windows, vec![&given.window_keys]));
        let (mut counters, mut met_windows) = (None, None);
        if !presumed.counters.is_empty() {
            trip.add(&s.insert_counters, vec![&presumed.counters]);
            // All gates lock windows before counters, so here they can't be left for later.
            met_windows = has_windows.then(|| trip.add(&s.lock_windows, given.windows()));
            counters = Some(trip.add(&s.lock_counters, vec![&presumed.counters]));
        }
        let moment = trip.add(&s.moment, vec![]);
        let answers = self.answers(&trip).await?;

        let is_there = |at: Option<usize>, given: usize| {
            at.is_some_and(|at| usize::try_from(answers[at].inserted).is_ok_and(|inserted| inserted < given))
        };
        let mut then = Trip::default();
        let met_markers = is_there(markers, given.marker_keys.len())
            .then(|| then.add(&s.select_markers, vec![&given.marker_keys, &given.marker_ids]));
        let met_later = (met_windows.is_none() && is_there(windows, given.window_keys.len()))
            .then(|| then.add(&s.lock_windows, given.windows()));
        let mut more = Vec::new();
        let mut moment = answers[moment].rows.first();
        if met_markers.or(met_later).is_some() {
            // Again: what was waited for took its time.
            let last = then.add(&s.moment, vec![]);
            more = self.answers(&then).await?;
            moment = more[last].rows.first();
        }
        let (seen, moment) = seen(moment, rows(&answers, uploads), rows(&answers, counters))?;
        let met_windows =
            if met_windows.is_some() { rows(&answers, met_windows) } else { rows(&more, met_later) };
        let windows = windows_of(met_windows, rows(&answers, old_windows).iter());
        match markers_of(rows(&more, met_markers), rows(&answers, old_markers).iter()) {
            Ok(markers) => Ok((Seen { markers, windows, ..seen }, moment)),
            Err(error) => Err(self.given_up(GateError::Statement(error)).await),
        }
    }

    /// First, since others may hold them: what waits for one holds no more.
    fn lock_uploads<'a>(&'a self, trip: &mut Trip<'a>, presumed: &'a Presumed) -> Option<usize> {
        let has_any = !presumed.uploads.is_empty();
        has_any.then(|| trip.add(&self.statements.lock_uploads, vec![&presumed.uploads]))
    }
}

/// The rows of an answer, if it was asked for.
fn rows(answers: &[Answer], at: Option<usize>) -> &[Row] {
    at.map_or(&[], |at| &answers[at].rows)
}

/// What was seen of everything but markers and windows.
fn seen(moment: Option<&Row>, uploads: &[Row], counters: &[Row]) -> Result<(Seen, Moment), GateError> {
    let moment = moment.ok_or(GateError::Disconnected)?;
    let mut seen = Seen::at(moment.get("now"));
    seen.counters = counters_of(counters);
    seen.uploads = uploads.iter().map(|row| row.get("id")).collect();
    Ok((seen, Moment { revision: moment.get("revision"), xid: moment.get("xid") }))
}
