// What the role of who is signed in allows. The server decides; this only says
// so before somebody tries.

import { live } from "./api.js";

/** mayAct tells whether more than looking is allowed. */
export const mayAct = () => live.role === "operator" || live.role === "admin";

/** why says in a sentence why an action is not offered. */
export const why = (action) => `Only operators may ${action}; you are signed in as ${live.role}.`;

/** acting is what a button needs that does more than look. */
export const acting = (action, props) => (mayAct() ? props : { ...props, disabled: true, title: why(action) });
