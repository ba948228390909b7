//! How far conversations are, asked by many at once. Who asks while a question about the same conversation is on its
//! way shares the next one with all others who came meanwhile. It is sent after they came, so its answer holds for
//! them; the one on its way may have been answered before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use shared::ports::{Heads, StoreError};
use shared::{Conversation, Seq};

type Question = Shared<BoxFuture<'static, Result<Seq, StoreError>>>;
/// Nobody may wait for the answer any more: then it is not asked.
type Weak = WeakShared<BoxFuture<'static, Result<Seq, StoreError>>>;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct SharedHeads(Arc<Inner>);

struct Inner {
    heads: Arc<dyn Heads>,
    asked: Mutex<HashMap<Conversation, Asked>>,
    numbers: AtomicU64,
}

/// The questions about one conversation.
struct Asked {
    on_its_way: (u64, Weak),
    next: Option<(u64, Weak)>,
}

impl SharedHeads {
    pub(crate) fn new(heads: Arc<dyn Heads>) -> Self {
        Self(Arc::new(Inner { heads, asked: Mutex::default(), numbers: AtomicU64::new(0) }))
    }

    /// As [`Heads::head`]: everything that was acknowledged before the call is within it.
    pub(crate) async fn head(&self, conversation: &Conversation) -> Result<Seq, StoreError> {
        self.question(conversation).await
    }

    fn question(&self, conversation: &Conversation) -> Question {
        let mut asked = self.0.asked();
        let Some(questions) = asked.get_mut(conversation) else {
            let (question, on_its_way) = self.new_question(conversation, None);
            asked.insert(conversation.clone(), Asked { on_its_way, next: None });
            return question;
        };
        if let Some(next) = questions.next.as_ref().and_then(|(_, next)| next.upgrade()) {
            return next;
        }
        let before = questions.on_its_way.1.upgrade();
        let is_first = before.is_none();
        let (question, numbered) = self.new_question(conversation, before);
        if is_first {
            questions.on_its_way = numbered;
        } else {
            questions.next = Some(numbered);
        }
        question
    }

    fn new_question(&self, conversation: &Conversation, before: Option<Question>) -> (Question, (u64, Weak)) {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let answered = Answered { heads: self.clone(), conversation: conversation.clone(), number };
        let question = ask(answered, before).boxed().shared();
        let weak = question.downgrade().expect("it has not been polled");
        (question, (number, weak))
    }
}

async fn ask(answered: Answered, before: Option<Question>) -> Result<Seq, StoreError> {
    if let Some(before) = before {
        // Its answer is for others.
        let _ = before.await;
    }
    answered.heads.0.heads.head(&answered.conversation).await
}

impl Inner {
    fn asked(&self) -> MutexGuard<'_, HashMap<Conversation, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for the next question when this one is answered, or when everybody has left it.
struct Answered {
    heads: SharedHeads,
    conversation: Conversation,
    number: u64,
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut asked = self.heads.0.asked();
        let Some(questions) = asked.get_mut(&self.conversation) else { return };
        if questions.next.as_ref().is_some_and(|(number, _)| *number == self.number) {
            questions.next = None;
        } else if questions.on_its_way.0 == self.number {
            match questions.next.take() {
                Some(next) => questions.on_its_way = next,
                None => drop(asked.remove(&self.conversation)),
            }
        }
    }
}
